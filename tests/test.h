/*
 * test.h: cmocka, version 1.1 or 2, behind one header.
 *
 * assert_status(call, CM_USAGE, "part of the message") checks a status and its recorded text.
 */
#ifndef TESTS_TEST_H
#define TESTS_TEST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "clustermark/error.h"
#include "clustermark/status.h"

#define assert_ok(call)                                                                            \
    do {                                                                                           \
        cm_error_clear();                                                                          \
        enum cm_status test_status_ = (call);                                                      \
        if (test_status_ != CM_OK)                                                                 \
            fail_msg("%s: %s: %s", #call, cm_status_name(test_status_), cm_error_text());          \
    } while (0)

#define assert_status(call, expected, part)                                                        \
    do {                                                                                           \
        cm_error_clear();                                                                          \
        enum cm_status test_status_ = (call);                                                      \
        if (test_status_ != (expected))                                                            \
            fail_msg("%s: %s instead of %s: %s", #call, cm_status_name(test_status_),              \
                     cm_status_name(expected), cm_error_text());                                   \
        if (strstr(cm_error_text(), (part)) == NULL)                                               \
            fail_msg("%s: message \"%s\" lacks \"%s\"", #call, cm_error_text(), (part));           \
    } while (0)

/* |x - y| <= tolerance * max(|y|, tiny); says both values. */
#define assert_near(x, y, tolerance)                                                               \
    do {                                                                                           \
        double test_x_ = (x), test_y_ = (y);                                                       \
        double test_scale_ = test_y_ < 0 ? -test_y_ : test_y_;                                     \
        double test_error_ = test_x_ < test_y_ ? test_y_ - test_x_ : test_x_ - test_y_;            \
        if (!(test_error_ <= (tolerance)*test_scale_ + 1e-300))                                    \
            fail_msg("%s is %.17g, not %.17g", #x, test_x_, test_y_);                              \
    } while (0)

#endif
