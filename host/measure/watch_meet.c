/* The watcher's address. */
#include "host/measure/watch_meet.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <ifaddrs.h>
#include <math.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "clustermark/error.h"
#include "clustermark/hash.h"
#include "host/measure/clock.h"
#include "host/measure/host.h"

uint64_t cm_watch_machine(void)
{
    struct {
        char boot[40];
        uint64_t device, inode;
    } key = {.device = 0};
    struct stat info;
    FILE *file = fopen("/proc/sys/kernel/random/boot_id", "re");
    if (file != NULL) {
        if (fgets(key.boot, sizeof key.boot, file) == NULL)
            key.boot[0] = '\0';
        fclose(file);
    }
    if (stat("/proc/self/ns/net", &info) == 0) {
        key.device = info.st_dev;
        key.inode = info.st_ino;
    }
    return cm_hash(0, &key, sizeof key);
}

static bool usable(const struct ifaddrs *item, struct cm_watch_address *address)
{
    *address = (struct cm_watch_address){.family = 0};
    if (item->ifa_addr == NULL || !(item->ifa_flags & IFF_UP) || item->ifa_flags & IFF_LOOPBACK)
        return false;
    if (item->ifa_addr->sa_family == AF_INET) {
        struct sockaddr_in in;
        memcpy(&in, item->ifa_addr, sizeof in);
        memcpy(address->bytes, &in.sin_addr, sizeof in.sin_addr);
        address->family = AF_INET;
    } else if (item->ifa_addr->sa_family == AF_INET6) {
        struct sockaddr_in6 in;
        memcpy(&in, item->ifa_addr, sizeof in);
        if (IN6_IS_ADDR_LINKLOCAL(&in.sin6_addr)) /* means nothing without an interface */
            return false;
        memcpy(address->bytes, &in.sin6_addr, sizeof in.sin6_addr);
        address->family = AF_INET6;
    }
    return address->family != 0;
}

static enum cm_status list_addresses(struct cm_watch_place *place)
{
    struct ifaddrs *list = NULL;
    struct cm_watch_address address;
    if (getifaddrs(&list) != 0)
        return cm_error_errno(CM_SYSTEM, "cannot list this host's addresses: getifaddrs");
    for (const struct ifaddrs *item = list; item != NULL; item = item->ifa_next) {
        if (usable(item, &address) && place->address_count < CM_WATCH_ADDRESSES_MAX)
            place->addresses[place->address_count++] = address;
    }
    freeifaddrs(list);
    return CM_OK;
}

/* Both kinds of addresses where the kernel knows both. */
static enum cm_status open_listener(int *fd, uint16_t *port)
{
    int off = 0;
    struct sockaddr_in6 six = {.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_ANY_INIT};
    struct sockaddr_in four = {.sin_family = AF_INET};
    struct sockaddr_storage bound = {.ss_family = AF_UNSPEC};
    socklen_t length = sizeof bound;
    int made = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (made >= 0 && (setsockopt(made, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off) != 0 ||
                      bind(made, (const struct sockaddr *)&six, sizeof six) != 0)) {
        close(made);
        made = -1;
    }
    if (made < 0) {
        made = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        if (made < 0)
            return cm_error_errno(CM_SYSTEM, "socket");
        if (bind(made, (const struct sockaddr *)&four, sizeof four) != 0)
            goto fail;
    }
    if (listen(made, SOMAXCONN) != 0 || getsockname(made, (struct sockaddr *)&bound, &length) != 0)
        goto fail;
    if (bound.ss_family == AF_INET6)
        memcpy(&six, &bound, sizeof six);
    else
        memcpy(&four, &bound, sizeof four);
    *port = ntohs(bound.ss_family == AF_INET6 ? six.sin6_port : four.sin_port);
    *fd = made;
    return CM_OK;

fail:;
    enum cm_status status = cm_error_errno(CM_SYSTEM, "cannot listen on a port of this host");
    close(made);
    return status;
}

enum cm_status cm_watch_listen(int *fd, struct cm_watch_place *place)
{
    struct cm_watch_place made = {.machine = cm_watch_machine()};
    cm_host_name(made.host, sizeof made.host);
    if (getrandom(made.cookie, sizeof made.cookie, 0) != (ssize_t)sizeof made.cookie)
        return cm_error_errno(CM_SYSTEM, "getrandom");
    enum cm_status status = list_addresses(&made);
    if (status == CM_OK)
        status = open_listener(fd, &made.port);
    if (status == CM_OK)
        *place = made;
    return status;
}

/* A connection being made. */
static int begin(const struct cm_watch_address *address, uint16_t port)
{
    struct sockaddr_in four = {.sin_family = AF_INET, .sin_port = htons(port)};
    struct sockaddr_in6 six = {.sin6_family = AF_INET6, .sin6_port = htons(port)};
    memcpy(&four.sin_addr, address->bytes, sizeof four.sin_addr);
    memcpy(&six.sin6_addr, address->bytes, sizeof six.sin6_addr);
    bool is_four = address->family == AF_INET;
    int fd = socket(is_four ? AF_INET : AF_INET6, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return -1;
    int result = is_four ? connect(fd, (const struct sockaddr *)&four, sizeof four)
                         : connect(fd, (const struct sockaddr *)&six, sizeof six);
    if (result == 0 || errno == EINPROGRESS)
        return fd;
    close(fd);
    return -1;
}

/* Whether the connection stands; its failure otherwise. */
static int failure_of(int fd)
{
    int failure = 0;
    socklen_t length = sizeof failure;
    return getsockopt(fd, SOL_SOCKET, SO_ERROR, &failure, &length) == 0 ? failure : errno;
}

static int first_that_stands(struct pollfd *polls, nfds_t count, double end_s, int *failure)
{
    for (;;) {
        nfds_t open = 0;
        for (nfds_t i = 0; i < count; i++)
            open += polls[i].fd >= 0;
        double left_s = end_s - cm_clock_s();
        if (open == 0 || left_s <= 0)
            return -1;
        if (poll(polls, count, (int)ceil(fmin(left_s, 60) * 1e3)) <= 0)
            continue;
        for (nfds_t i = 0; i < count; i++) {
            if (polls[i].fd < 0 || polls[i].revents == 0)
                continue;
            int found = failure_of(polls[i].fd);
            if (found == 0)
                return (int)i;
            *failure = found;
            close(polls[i].fd);
            polls[i].fd = -1;
        }
    }
}

enum cm_status cm_watch_connect(const struct cm_watch_place *place, double timeout_s, int *fd)
{
    struct pollfd polls[CM_WATCH_ADDRESSES_MAX + 1];
    const struct cm_watch_address home = {.family = AF_INET, .bytes = {127, 0, 0, 1}};
    bool same = place->machine == cm_watch_machine();
    nfds_t count = 0;
    int failure = ETIMEDOUT, on = 1;
    for (unsigned i = 0; !same && i < place->address_count && i < CM_WATCH_ADDRESSES_MAX; i++)
        polls[count++] =
            (struct pollfd){.fd = begin(&place->addresses[i], place->port), .events = POLLOUT};
    if (same)
        polls[count++] = (struct pollfd){.fd = begin(&home, place->port), .events = POLLOUT};
    int stands = first_that_stands(polls, count, cm_clock_s() + timeout_s, &failure);
    for (nfds_t i = 0; i < count; i++) {
        if ((int)i != stands && polls[i].fd >= 0)
            close(polls[i].fd);
    }
    if (stands < 0)
        return cm_error(CM_LOST, "port %u of %s cannot be reached: %s", place->port, place->host,
                        strerror(failure));
    int made = polls[stands].fd;
    fcntl(made, F_SETFL, fcntl(made, F_GETFL) & ~O_NONBLOCK);
    setsockopt(made, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    *fd = made;
    return CM_OK;
}
