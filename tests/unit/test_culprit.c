/* host/measure/culprit.c: who is to blame, from tables of who said what when. */
#include "test.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "clustermark/error.h"
#include "host/measure/culprit.h"

#define RANKS     4
#define SILENCE_S 10.0
#define NOW_S     1000.0

/* A rank, as far as it differs from one that was heard of a second ago and gets on. */
struct row {
    const char *host; /* NULL: as its number */
    double silent_s, stuck_s, word_ago_s;
    enum cm_word word;
    enum cm_status error;
    unsigned loss;
    int ahead;  /* steps */
    int queued; /* operations */
    bool absent, far;
};

struct judged {
    const char *what;
    struct row rows[RANKS];
    enum cm_fate fate;
    unsigned rank, others;
    const char *text; /* part of the line; NULL: not looked at */
};

static const struct judged table[] = {
    {"all get on", {{0}}, CM_FATE_FINE, 0, 0, NULL},
    {"nobody is there yet",
     {{.absent = true}, {.absent = true}, {.absent = true}, {.absent = true}},
     CM_FATE_FINE,
     0,
     0,
     NULL},
    {"one died",
     {[2] = {.loss = 1}},
     CM_FATE_DIED,
     2,
     0,
     "rank 2 on h2 (cpu) died in warm-up of c"},
    {"one died, and another of it",
     {[1] = {.loss = 2}, [3] = {.loss = 1}},
     CM_FATE_DIED,
     3,
     1,
     "rank 3 on h3"},
    {"one died, and the launcher ended all others before that was seen",
     {{.loss = 1, .word = CM_WORD_TOLD},
      {.loss = 3},
      {.loss = 2, .word = CM_WORD_TOLD},
      {.loss = 4, .word = CM_WORD_TOLD}},
     CM_FATE_DIED,
     1,
     0,
     NULL},
    {"one died, and the others' communication failed first",
     {{.word = CM_WORD_FAILED, .error = CM_COMM}, {.loss = 1}},
     CM_FATE_DIED,
     1,
     0,
     NULL},
    {"one is stopped",
     {[1] = {.silent_s = 14.1}},
     CM_FATE_SILENT,
     1,
     0,
     "rank 1 on h1 (cpu) gave no sign of life for 14.1 s"},
    {"one may be stopped", {[1] = {.silent_s = 13.9}}, CM_FATE_FINE, 1, 0, NULL},
    {"rank 0 is stopped", {{.silent_s = 14.1}}, CM_FATE_SILENT, 0, 0, NULL},
    {"a host is cut off",
     {[1] = {.host = "far"}, [2] = {.host = "far", .silent_s = 13}, [3] = {.host = "far"}},
     CM_FATE_FINE,
     0,
     0,
     NULL},
    {"a host of two ranks is cut off",
     {[1] = {.host = "far", .silent_s = 13}, [2] = {.host = "far", .silent_s = 14.5}},
     CM_FATE_SILENT,
     1,
     1,
     "rank 1 on far (cpu) and 1 other of this host"},
    {"one of two ranks on a host is stopped",
     {[1] = {.host = "far"}, [2] = {.host = "far", .silent_s = 14.5}},
     CM_FATE_SILENT,
     2,
     0,
     NULL},
    {"the watcher's host is cut off",
     {[1] = {.silent_s = 14.1}, [2] = {.silent_s = 12.4}, [3] = {.silent_s = 13}},
     CM_FATE_CUT_OFF,
     0,
     0,
     "h0, the host of rank 0, was cut off"},
    {"the watcher's host with two ranks is cut off",
     {[1] = {.host = "h0"}, [2] = {.silent_s = 14.1}, [3] = {.silent_s = 13}},
     CM_FATE_CUT_OFF,
     0,
     0,
     NULL},
    {"two of three far hosts are silent",
     {[1] = {.silent_s = 14.1}, [2] = {.silent_s = 14.4}},
     CM_FATE_SILENT,
     2,
     0,
     NULL},
    {"of two hosts the other is silent",
     {[1] = {.host = "h0"},
      [2] = {.host = "far", .silent_s = 14.1},
      [3] = {.host = "far", .silent_s = 14.2}},
     CM_FATE_SILENT,
     2,
     1,
     NULL},
    {"what failed on one rank is waited for",
     {[2] = {.word = CM_WORD_FAILED, .error = CM_DEVICE, .word_ago_s = 3}},
     CM_FATE_FINE,
     0,
     0,
     NULL},
    {"one failed",
     {[2] = {.word = CM_WORD_FAILED, .error = CM_DEVICE, .word_ago_s = 4.1}},
     CM_FATE_FAILED,
     2,
     0,
     "rank 2 on h2 (cpu) failed in warm-up of c; last communication all_reduce: broke"},
    {"all failed, one of its own",
     {{.word = CM_WORD_FAILED, .error = CM_TIMEOUT, .word_ago_s = 3},
      {.word = CM_WORD_FAILED, .error = CM_COMM, .word_ago_s = 2},
      {.word = CM_WORD_FAILED, .error = CM_DEVICE, .word_ago_s = 1},
      {.word = CM_WORD_FAILED, .error = CM_TIMEOUT, .word_ago_s = 3}},
     CM_FATE_FAILED,
     2,
     0,
     NULL},
    {"who waited in vain, for one that is behind",
     {{.word = CM_WORD_FAILED, .error = CM_TIMEOUT, .word_ago_s = 5},
      {.stuck_s = 60, .ahead = -1},
      {.word = CM_WORD_FAILED, .error = CM_TIMEOUT, .word_ago_s = 4},
      {.stuck_s = 60}},
     CM_FATE_STALLED,
     1,
     0,
     "rank 1 on h1 (cpu) made no progress for 60.0 s"},
    {"who waited in vain, and nobody is behind",
     {{.word = CM_WORD_FAILED, .error = CM_TIMEOUT, .word_ago_s = 4.5},
      {.word = CM_WORD_FAILED, .error = CM_TIMEOUT, .word_ago_s = 5, .stuck_s = 65},
      {.stuck_s = 59},
      {0}},
     CM_FATE_FAILED,
     1,
     0,
     NULL},
    {"who waited in vain, for one that is as far and says nothing",
     {{.word = CM_WORD_FAILED, .error = CM_TIMEOUT, .word_ago_s = 4.5, .stuck_s = 64},
      {.word = CM_WORD_FAILED, .error = CM_TIMEOUT, .word_ago_s = 5, .stuck_s = 65},
      {.stuck_s = 61},
      {.word = CM_WORD_FAILED, .error = CM_TIMEOUT, .word_ago_s = 5, .stuck_s = 65, .queued = 1}},
     CM_FATE_STALLED,
     2,
     0,
     NULL},
    {"who complains while another may just be falling silent",
     {{.word = CM_WORD_FAILED, .error = CM_TIMEOUT, .word_ago_s = 5}, {.silent_s = 6}},
     CM_FATE_FINE,
     0,
     0,
     NULL},
    {"one is stuck in an earlier phase",
     {{.stuck_s = 70}, {.stuck_s = 71}, {.stuck_s = 72, .ahead = -1}, {.stuck_s = 73}},
     CM_FATE_STALLED,
     2,
     0,
     NULL},
    {"one has not come to an operation that the others wait in",
     {{.stuck_s = 70}, {.stuck_s = 71, .queued = -1}, {.stuck_s = 72}, {.stuck_s = 73}},
     CM_FATE_STALLED,
     1,
     0,
     NULL},
    {"all are stuck alike",
     {{.stuck_s = 70}, {.stuck_s = 73}, {.stuck_s = 72}, {.stuck_s = 71}},
     CM_FATE_STALLED,
     1,
     3,
     "rank 1 on h1 (cpu) and 3 others made no progress"},
    {"all got a signal",
     {{.word = CM_WORD_TOLD, .loss = 1},
      {.word = CM_WORD_TOLD, .loss = 2},
      {.word = CM_WORD_TOLD, .loss = 3},
      {.word = CM_WORD_TOLD, .loss = 4}},
     CM_FATE_ENDED,
     0,
     3,
     "interrupted"},
    {"one got a signal",
     {[3] = {.word = CM_WORD_TOLD, .loss = 1, .word_ago_s = 4.1}},
     CM_FATE_TOLD,
     3,
     0,
     "rank 3 on h3 (cpu) got a signal to end"},
    {"the launcher ended all but one, which is stopped",
     {{.word = CM_WORD_TOLD, .loss = 1, .word_ago_s = 6},
      {.silent_s = 9},
      {.word = CM_WORD_TOLD, .loss = 2, .word_ago_s = 6},
      {.word = CM_WORD_TOLD, .loss = 3, .word_ago_s = 6}},
     CM_FATE_FINE,
     0,
     0,
     NULL},
    {"all are through",
     {{.word = CM_WORD_BYE, .loss = 1},
      {.word = CM_WORD_BYE},
      {.word = CM_WORD_BYE},
      {.word = CM_WORD_BYE, .loss = 2}},
     CM_FATE_OVER,
     0,
     0,
     NULL},
    {"one died after the others were through",
     {{.word = CM_WORD_BYE, .loss = 1},
      {.word = CM_WORD_BYE, .loss = 2},
      {.loss = 3},
      {.word = CM_WORD_BYE, .loss = 4}},
     CM_FATE_DIED,
     2,
     0,
     NULL},
};

static void fill(const struct row *row, unsigned rank, struct cm_watched *watched)
{
    char host[8];
    *watched = (struct cm_watched){
        .joined = !row->absent,
        .device = "cpu",
        .place = {.in_case = true,
                  .name = "c",
                  .phase = "warm-up",
                  .steps = (uint64_t)(100 + row->ahead),
                  .common = (uint64_t)(1000 + row->queued),
                  .operation = "all_reduce",
                  .allowed_s = 66},
        .heard_s = NOW_S - (row->silent_s > 0 ? row->silent_s : 1),
        .moved_s = NOW_S - (row->stuck_s > 0 ? row->stuck_s : 1),
        .word = row->word,
        .word_s = NOW_S - row->word_ago_s,
        .error = {.status = row->error, .text = "broke"},
        .loss = row->loss,
    };
    snprintf(host, sizeof host, "h%u", rank);
    snprintf(watched->host, sizeof watched->host, "%s", row->host != NULL ? row->host : host);
    watched->near = strcmp(watched->host, "h0") == 0;
}

static void judgements(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        const struct judged *row = &table[i];
        struct cm_watched ranks[RANKS];
        struct cm_str text = CM_STR_INIT;
        for (unsigned rank = 0; rank < RANKS; rank++)
            fill(&row->rows[rank], rank, &ranks[rank]);
        struct cm_culprit found = cm_judge(ranks, RANKS, SILENCE_S, NOW_S);
        bool named = row->fate != CM_FATE_FINE && row->fate != CM_FATE_OVER;
        if (found.fate != row->fate ||
            (named && (found.rank != row->rank || found.others != row->others)))
            fail_msg("%s: fate %d, rank %u and %u others", row->what, (int)found.fate, found.rank,
                     found.others);
        cm_culprit_text(ranks, &found, true, &text);
        if (row->text != NULL && strstr(cm_str_text(&text), row->text) == NULL)
            fail_msg("%s: \"%s\"", row->what, cm_str_text(&text));
        cm_str_reset(&text);
        cm_culprit_text(ranks, &found, false, &text);
        assert_null(strstr(cm_str_text(&text), "h2"));
        cm_str_release(&text);
    }
}

/* Who fell silent is named whenever the judge looks, as long as it looks often. */
static void any_time(void **state)
{
    (void)state;
    for (unsigned cut = 0; cut < RANKS; cut++) {
        for (unsigned phase = 0; phase < 20; phase++) {
            /* Beats come every 2 s, each rank's at its own moment; the link is cut at 100 s. */
            struct cm_watched ranks[RANKS];
            struct cm_culprit found = {.fate = CM_FATE_FINE};
            double now_s = 0;
            for (unsigned rank = 0; rank < RANKS; rank++)
                fill(&(struct row){0}, rank, &ranks[rank]);
            for (unsigned half = 0; found.fate == CM_FATE_FINE && half < 60; half++) {
                now_s = 100 + 0.5 * half;
                for (unsigned rank = 0; rank < RANKS; rank++) {
                    double offset = 0.7 * rank + 0.1 * phase;
                    double until_s = (cut == 0 ? rank > 0 : rank == cut) ? 100 : now_s;
                    ranks[rank].heard_s = offset + 2 * floor((until_s - offset) / 2);
                    ranks[rank].moved_s = now_s;
                }
                found = cm_judge(ranks, RANKS, SILENCE_S, now_s);
            }
            assert_int_equal(found.fate, cut == 0 ? CM_FATE_CUT_OFF : CM_FATE_SILENT);
            assert_int_equal(found.rank, cut);
            assert_true(now_s <= 100 + 1.4 * SILENCE_S + 0.5);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(judgements),
        cmocka_unit_test(any_time),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
