/* Names of options, keys and sections. */
#include "host/base/name.h"

#include <string.h>

static char fold(char letter)
{
    return letter == '-' ? '_' : letter;
}

bool cm_name_equal(const char *a, const char *b)
{
    while (*a != '\0' && fold(*a) == fold(*b)) {
        a++;
        b++;
    }
    return fold(*a) == fold(*b);
}

size_t cm_name_distance(const char *a, const char *b)
{
    size_t a_length = strlen(a), b_length = strlen(b);
    if (a_length > CM_NAME_MAX || b_length > CM_NAME_MAX)
        return CM_NAME_MAX + 1;
    /* row[j]: from the first i letters of a to the first j of b. */
    size_t row[CM_NAME_MAX + 1];
    for (size_t j = 0; j <= b_length; j++)
        row[j] = j;
    for (size_t i = 1; i <= a_length; i++) {
        size_t diagonal = row[0];
        row[0] = i;
        for (size_t j = 1; j <= b_length; j++) {
            size_t change = diagonal + (fold(a[i - 1]) != fold(b[j - 1]));
            size_t step = (row[j] < row[j - 1] ? row[j] : row[j - 1]) + 1;
            diagonal = row[j];
            row[j] = change < step ? change : step;
        }
    }
    return row[b_length];
}

bool cm_name_near(size_t distance, const char *a, const char *b)
{
    return distance <= 3 && distance < strlen(a) && distance < strlen(b);
}
