/* Runs a fuzzer over the files of a corpus, for builds without libFuzzer: replay FOLDER. Each file
 * goes in whole, cut short at up to 64 places, and with a bit turned at as many. */
#include <dirent.h>
#include <string.h>

#include "fuzz/fuzz.h"

#define PLACES 64

static uint8_t *read_file(const char *folder, const char *name, size_t *size)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *file = fopen(path, "rb");
    uint8_t *data = NULL;
    if (file == NULL || fseek(file, 0, SEEK_END) != 0)
        goto fail;
    long length = ftell(file);
    if (length < 0 || fseek(file, 0, SEEK_SET) != 0)
        goto fail;
    *size = (size_t)length;
    data = malloc(*size + 1);
    if (data == NULL || fread(data, 1, *size, file) != *size)
        goto fail;
    fclose(file);
    return data;
fail:
    perror(path);
    free(data);
    if (file != NULL)
        fclose(file);
    return NULL;
}

/* A copy of exactly the size, so that a sanitizer sees a read beyond its end. */
static void run(const uint8_t *data, size_t size, size_t turned)
{
    uint8_t *copy = malloc(size ? size : 1);
    REQUIRE(copy != NULL);
    memcpy(copy, data, size);
    if (turned < size)
        copy[turned] ^= (uint8_t)(1u << turned % 8);
    LLVMFuzzerTestOneInput(copy, size);
    free(copy);
}

static void run_variants(const uint8_t *data, size_t size)
{
    run(data, size, size);
    size_t places = size < PLACES ? size : PLACES;
    for (size_t i = 0; i < places; i++) {
        run(data, i * size / places, size);
        run(data, size, i * size / places);
    }
}

int main(int argc, char **argv)
{
    if (argc != 2) {
        fprintf(stderr, "usage: %s FOLDER\n", argv[0]);
        return 64;
    }
    struct dirent **entries = NULL;
    int count = scandir(argv[1], &entries, NULL, alphasort);
    if (count < 0) {
        perror(argv[1]);
        return 1;
    }
    unsigned files = 0, bad = 0;
    for (int i = 0; i < count; i++) {
        if (entries[i]->d_name[0] != '.') {
            size_t size;
            uint8_t *data = read_file(argv[1], entries[i]->d_name, &size);
            if (data != NULL)
                run_variants(data, size);
            bad += data == NULL;
            files++;
            free(data);
        }
        free(entries[i]);
    }
    free(entries);
    printf("%u files of %s, each whole and changed\n", files, argv[1]);
    return files == 0 || bad > 0;
}
