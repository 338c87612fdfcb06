/* The smallest parts of the base: statuses and messages, memory, growing strings, hashes. */
#include "test.h"

#include <errno.h>
#include <pthread.h>
#include <stdint.h>

#include "clustermark/hash.h"
#include "clustermark/memory.h"
#include "clustermark/strbuf.h"

static void statuses(void **state)
{
    (void)state;
    assert_string_equal(cm_status_name(CM_OK), "CM_OK");
    assert_string_equal(cm_status_name(CM_INTERRUPTED), "CM_INTERRUPTED");
    assert_string_equal(cm_status_name((enum cm_status)999), "CM_?");
    assert_string_equal(cm_status_text(CM_NO_MEMORY), "out of memory");
    assert_non_null(cm_status_text((enum cm_status) - 1));
    assert_int_equal(cm_status_exit_code(CM_OK), 0);
    assert_int_equal(cm_status_exit_code(CM_USAGE), 64);
    assert_int_equal(cm_status_exit_code((enum cm_status)999), 70);
    for (int i = 1; i < CM_STATUS_COUNT; i++) {
        assert_int_not_equal(cm_status_exit_code((enum cm_status)i), 0);
        assert_int_not_equal(cm_status_exit_code((enum cm_status)i), 2);
    }
}

static void *other_thread(void *arg)
{
    (void)arg;
    if (*cm_error_text() != '\0')
        return "sees the first thread's message";
    cm_error(CM_IO, "mine");
    return NULL;
}

static void messages(void **state)
{
    (void)state;
    cm_error_clear();
    assert_string_equal(cm_error_text(), "");
    assert_int_equal(cm_error_at(CM_LOST, "rank %d: ", 3), CM_LOST);
    assert_string_equal(cm_error_text(), "rank 3: a rank died or is missing");
    assert_int_equal(cm_error_cause(), CM_LOST);
    assert_int_equal(cm_error(CM_USAGE, "size is %d", 0), CM_USAGE);
    assert_string_equal(cm_error_text(), "size is 0");
    assert_int_equal(cm_error_at(CM_TIMEOUT, "case %s: ", "gemm"), CM_TIMEOUT);
    assert_int_equal(cm_error_cause(), CM_USAGE);
    assert_string_equal(cm_error_text(), "case gemm: size is 0");
    cm_error(CM_USAGE, "%s again", cm_error_text());
    assert_string_equal(cm_error_text(), "case gemm: size is 0 again");
    errno = ENOENT;
    assert_int_equal(cm_error_errno(CM_IO, "open %s", "x"), CM_IO);
    assert_string_equal(cm_error_text(), "open x: No such file or directory");
    assert_int_equal(errno, ENOENT);
    assert_int_equal(cm_error_cause(), CM_IO);

    pthread_t thread;
    void *complaint = NULL;
    assert_int_equal(pthread_create(&thread, NULL, other_thread, NULL), 0);
    assert_int_equal(pthread_join(thread, &complaint), 0);
    if (complaint != NULL)
        fail_msg("another thread %s", (char *)complaint);
    assert_string_equal(cm_error_text(), "open x: No such file or directory");
}

static void long_messages_are_cut(void **state)
{
    (void)state;
    char text[2 * CM_ERROR_TEXT_MAX];
    memset(text, 'x', sizeof text);
    text[sizeof text - 1] = '\0';
    cm_error(CM_USAGE, "%s", text);
    assert_int_equal(strlen(cm_error_text()), CM_ERROR_TEXT_MAX - 1);
    cm_error_at(CM_USAGE, "%s", "front: ");
    assert_int_equal(strlen(cm_error_text()), CM_ERROR_TEXT_MAX - 1);
    assert_memory_equal(cm_error_text(), "front: xxx", 10);
    errno = EIO;
    cm_error_errno(CM_IO, "%s", text);
    assert_int_equal(strlen(cm_error_text()), CM_ERROR_TEXT_MAX - 1);
}

static void memory(void **state)
{
    (void)state;
    unsigned char *block = cm_alloc(3, 5);
    for (int i = 0; i < 15; i++)
        assert_int_equal(block[i], 0);
    block[14] = 9;
    block = cm_resize(block, 100, 5);
    assert_int_equal(block[14], 9);
    cm_free(block);
    cm_free(NULL);
    block = cm_alloc(0, 0);
    assert_non_null(block);
    cm_free(block);

    cm_error_clear();
    assert_null(cm_alloc(SIZE_MAX / 2, 3));
    assert_non_null(strstr(cm_error_text(), "out of memory: asked for 9223372036854775807 x 3"));
    char *kept = cm_strdup("kept");
    cm_error_clear();
    assert_null(cm_resize(kept, SIZE_MAX / 2, 3));
    assert_non_null(strstr(cm_error_text(), "out of memory"));
    assert_string_equal(kept, "kept");
    cm_free(kept);
    char *text = cm_strf("%s-%d", "a", 5);
    assert_string_equal(text, "a-5");
    cm_free(text);
}

static void growing_arrays(void **state)
{
    (void)state;
    int *items = NULL;
    size_t capacity = 0;
    for (int i = 0; i < 1000; i++) {
        assert_int_equal(cm_grow(&items, &capacity, (size_t)i + 1, sizeof *items), 0);
        assert_true(capacity > (size_t)i);
        items[i] = i;
    }
    for (int i = 0; i < 1000; i++)
        assert_int_equal(items[i], i);
    size_t before = capacity;
    int *same = items;
    assert_int_equal(cm_grow(&items, &capacity, SIZE_MAX / 2, sizeof *items), -1);
    assert_int_equal(cm_grow(&items, &capacity, SIZE_MAX, sizeof *items), -1);
    assert_int_equal(capacity, before);
    assert_ptr_equal(items, same);
    cm_free(items);
}

static void strings(void **state)
{
    (void)state;
    struct cm_str text = CM_STR_INIT;
    assert_string_equal(cm_str_text(&text), "");
    cm_str_add(&text, "");
    assert_string_equal(cm_str_text(&text), "");
    for (int i = 0; i < 100; i++)
        cm_str_addf(&text, "%02d,", i);
    cm_str_add_bytes(&text, "a\0b", 3);
    assert_int_equal(text.length, 303);
    assert_memory_equal(text.text, "00,01,", 6);
    assert_memory_equal(text.text + 300, "a\0b", 4);
    assert_ok(cm_str_status(&text));
    cm_str_reset(&text);
    cm_str_add_xml(&text, "a<b>&\"c'\x01\x1b\n\t\u00e4");
    assert_string_equal(cm_str_text(&text), "a&lt;b&gt;&amp;&quot;c&#39;\n\t\u00e4");
    cm_str_release(&text);
    assert_null(text.text);
    cm_str_release(&text);
}

static void failed_strings(void **state)
{
    (void)state;
    struct cm_str text = CM_STR_INIT;
    cm_str_add(&text, "before");
    cm_str_add_bytes(&text, "", SIZE_MAX - 3); /* overflows, copies nothing */
    cm_str_add(&text, "after");
    cm_str_addf(&text, "%d", 1);
    assert_string_equal(cm_str_text(&text), "before");
    assert_status(cm_str_status(&text), CM_NO_MEMORY, "out of memory");
    cm_str_reset(&text);
    cm_str_add(&text, "again");
    assert_ok(cm_str_status(&text));
    assert_string_equal(cm_str_text(&text), "again");
    cm_str_release(&text);
}

static void hashes(void **state)
{
    (void)state;
    char buffer[CM_HASH_TEXT_MAX];
    uint64_t a = cm_hash(0, "a", 1);
    assert_true(a == cm_hash(0, "a", 1));
    assert_true(a != cm_hash(0, "b", 1));
    assert_true(a != cm_hash(1, "a", 1));
    assert_true(cm_hash(0, "", 0) != a);
    assert_true(cm_hash(cm_hash(0, "a", 1), "b", 1) != cm_hash(cm_hash(0, "b", 1), "a", 1));
    /* Half of the bits differ between neighbours, more or less. */
    int bits = __builtin_popcountll(a ^ cm_hash(0, "b", 1));
    assert_in_range(bits, 16, 48);
    assert_string_equal(cm_hash_text(0xabc, buffer), "0000000000000abc");
    assert_string_equal(cm_hash_text(UINT64_MAX, buffer), "ffffffffffffffff");
    /* Digests are stored in results: they must not change. */
    assert_string_equal(cm_hash_text(cm_hash(0, "clustermark", 11), buffer), "2fb35553ba0640cb");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(statuses),
        cmocka_unit_test(messages),
        cmocka_unit_test(long_messages_are_cut),
        cmocka_unit_test(memory),
        cmocka_unit_test(growing_arrays),
        cmocka_unit_test(strings),
        cmocka_unit_test(failed_strings),
        cmocka_unit_test(hashes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
