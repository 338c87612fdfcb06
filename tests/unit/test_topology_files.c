/* Topology files from strangers: each bad one is a usage error with one line that names the file,
 * and nothing is printed by any library. */
#include "test.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "clustermark/memory.h"
#include "clustermark/topology.h"

static char folder[] = "/tmp/cm-topology-XXXXXX";
static char file[64];

static int make_folder(void **state)
{
    (void)state;
    if (mkdtemp(folder) == NULL)
        return -1;
    snprintf(file, sizeof file, "%s/t.xml", folder);
    return 0;
}

static int remove_folder(void **state)
{
    (void)state;
    unlink(file);
    return rmdir(folder);
}

static void write_bytes(const char *text, size_t length)
{
    FILE *out = fopen(file, "w");
    assert_non_null(out);
    assert_int_equal(fwrite(text, 1, length, out), length);
    assert_int_equal(fclose(out), 0);
}

/* Loads `text` with stderr caught; it must be refused with `part` and print nothing. */
static void refused(const char *text, size_t length, const char *part)
{
    struct cm_topology topology;
    memset(&topology, 0x5a, sizeof topology);
    struct cm_topology before = topology;
    char caught[256];
    write_bytes(text, length);
    FILE *log = tmpfile();
    assert_non_null(log);
    int saved = dup(2);
    dup2(fileno(log), 2);
    cm_error_clear();
    enum cm_status status = cm_topology_load(file, &topology);
    dup2(saved, 2);
    close(saved);
    rewind(log);
    size_t printed = fread(caught, 1, sizeof caught, log);
    fclose(log);
    if (status != CM_USAGE || strstr(cm_error_text(), part) == NULL ||
        strstr(cm_error_text(), file) == NULL || strchr(cm_error_text(), '\n') != NULL)
        fail_msg("\"%.60s\": %s: %s; expected \"%s\"", text, cm_status_name(status),
                 cm_error_text(), part);
    assert_int_equal(printed, 0);
    assert_memory_equal(&topology, &before, sizeof topology);
}

#define HWLOC(objects) "<topology version=\"2.0\">" objects "</topology>"
#define SETS(cpus, nodes)                                                                          \
    "cpuset=\"0x" cpus "\" complete_cpuset=\"0x" cpus "\" nodeset=\"0x" nodes                      \
    "\" complete_nodeset=\"0x" nodes "\""
#define CPU_OPEN "<system version=\"1\">\n<cpu numaid=\"0\">\n"

static const struct {
    const char *text, *part;
} bad_texts[] = {
    {" ", "no XML file"},
    {"hello", ":1: text outside of elements"},
    {"{\"gpus\": []}", ":1: text outside"},
    {"<html></html>", "<html>, neither <topology>"},
    {"<system", "ends inside"},
    {"<system version=\"1\">", ":1: the file ends before </system>"},
    {"<system version=\"1\"/>", "no <cpu>"},
    {"<system version=\"1\"><cpu", "ends inside"},
    {"<!-- <system>", "ends inside a comment"},
    {"<!DOCTYPE x [<!ENTITY a \"b\">]><system/>", "own definitions"},
    {"<?php x ?><system/>", "a name was expected"},
    {"<system version=1/>", "no quotes"},
    {"<system version/>", "has no value"},
    {"<system a=\"1\" a=\"2\"/>", "the attribute a twice"},
    {"<system a=\"1\"b=\"2\"/>", "not well-formed"},
    {"<system a=\"<\"/>", "'<' inside"},
    {"<system a=\"&bomb;\"/>", "an entity that is not"},
    {"<system a=\"&#xfffffff;\"/>", "a character number"},
    {"<system a=\"&#0;\"/>", "a character number"},
    {"<system><cpu></system>", ":1: </system> closes what is not open"},
    {"<system><cpu/></system><system/>", "second root"},
    {"<system><cpu/>text</system>", "text inside <system>"},
    {CPU_OPEN "<pci/></cpu></system>", ":3: <pci> has no busid"},
    {CPU_OPEN "<pci busid=\"zz\"/></cpu></system>", ":3: busid=\"zz\" is no PCI bus id"},
    {CPU_OPEN "<pci busid=\"0:0:0.0&#10;evil\"/></cpu></system>", "0:0:0.0?evil"},
    {CPU_OPEN "<pci busid=\"0:0:0.0\" class=\"seven\"/></cpu></system>", "a whole number"},
    {CPU_OPEN "<pci busid=\"0:0:0.0\" vendor=\"0x10de0\"/></cpu></system>", "a whole number"},
    {CPU_OPEN "</cpu><cpu numaid=\"0\"/></system>", "numaid 0 appears twice"},
    {"<system><cpu numaid=\"99999999999999999999\"/></system>", "a whole number"},
    {"<system><cpu affinity=\"xyz\"/></system>", "no processor mask"},
    {"<system><cpu affinity=\"123456789\"/></system>", "no processor mask"},
    {"<system><cpu affinity=\"1,,2\"/></system>", "no processor mask"},
    {"<system><cpu><cpu/></cpu></system>", "<cpu> inside <cpu>"},
    {CPU_OPEN "<pci busid=\"0:0:0.0\"><gpu><nvlink target=\"0:0:0.0\" count=\"0\"/></gpu>"
              "</pci></cpu></system>",
     "count=\"0\""},
    {CPU_OPEN "<pci busid=\"1:0.0\"><gpu/></pci><pci busid=\"01:00.0\"><gpu/></pci></cpu>"
              "</system>",
     "0000:01:00.0 appears twice"},
    {"<topology></topology>", "hwloc 1.x"},
    {"<topology version=\"3.0\"></topology>", "hwloc XML version 3.0"},
    {"<topology version=\"2.0\"></topology>", "no Machine object"},
    {HWLOC("<object type=\"Package\"/>"), "a Package in a place"},
    {HWLOC("<object type=\"Tardis\"/>"), "type \"Tardis\""},
    {HWLOC("<object type=\"Machine\"/>"), "without cpuset"},
    {HWLOC("<object type=\"Machine\" " SETS("3", "1") "/>"), "no NUMA node"},
    {HWLOC("<object type=\"Machine\" " SETS("3", "1") "><object type=\"PU\" os_index=\"2\" " SETS(
         "4", "1") "/></object>"),
     "beyond that of the object around"},
    {HWLOC("<object type=\"Machine\" " SETS("3", "1") "><object type=\"PU\" os_index=\"1\" " SETS(
         "1", "1") "/></object>"),
     "must be its os_index"},
    {HWLOC("<object type=\"Machine\" " SETS("3", "1") "><object type=\"PU\" os_index=\"0\" " SETS(
         "1", "1") "/><object type=\"PU\" os_index=\"0\" " SETS("1", "1") "/></object>"),
     "os_index 0 appears twice"},
    {HWLOC("<object type=\"Machine\" " SETS("3", "1") "/><object type=\"Machine\" " SETS("3",
                                                                                         "1") "/>"),
     "a second Machine"},
    {"<topology version=\"2.0\"><object type=\"Machine\" cpuset=\"0xf...f\"/></topology>",
     "no set like"},
    {HWLOC("<object type=\"Machine\" os_index=\"99999\" " SETS("3", "1") "/>"),
     "a number up to 65535"},
    {"<topology version=\"2.0\"><distances2 nbobjs=\"60000\"/></topology>", "a number up to 1024"},
    {HWLOC("<object type=\"Machine\" " SETS("3", "1") ">x</object>"), "text inside <object>"},
};

static void test_bad_text(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof bad_texts / sizeof bad_texts[0]; i++)
        refused(bad_texts[i].text, strlen(bad_texts[i].text), bad_texts[i].part);
    refused("<system>\0</system>", 18, "text");
}

/* Cut anywhere before its end, each fixture is refused. */
static void truncate_all(const char *name, size_t step)
{
    char path[512];
    static char text[65536];
    snprintf(path, sizeof path, "%s/topology/%s", CM_TEST_FIXTURES, name);
    FILE *in = fopen(path, "r");
    assert_non_null(in);
    size_t length = fread(text, 1, sizeof text, in);
    fclose(in);
    assert_in_range(length, 100, sizeof text - 1);
    while (text[length - 1] != '>')
        length--;
    for (size_t cut = 1; cut < length; cut += step)
        refused(text, cut, "");
}

static void test_truncated(void **state)
{
    (void)state;
    truncate_all("nvlink-pairs.nccl.xml", 7);
    truncate_all("slow-link.hwloc.xml", 13);
    truncate_all("h100x8.hwloc.xml", 501);
}

static void test_deep(void **state)
{
    (void)state;
    struct cm_str text = CM_STR_INIT;
    cm_str_add(&text, CPU_OPEN);
    for (int i = 0; i < 200; i++)
        cm_str_add(&text, "<pci busid=\"0:0:0.0\">\n");
    refused(text.text, text.length, "nested deeper than");
    cm_str_reset(&text);
    for (int i = 0; i < 100000; i++)
        cm_str_add(&text, "<topology version=\"2.0\">");
    refused(text.text, text.length, "nested deeper than");
    cm_str_release(&text);
}

static void test_many(void **state)
{
    (void)state;
    struct cm_str text = CM_STR_INIT;
    cm_str_add(&text, "<system");
    for (int i = 0; i < 100; i++)
        cm_str_addf(&text, " a%d=\"\"", i);
    refused(text.text, text.length, "more than 64 attributes");
    cm_str_reset(&text);
    cm_str_add(&text, CPU_OPEN);
    for (int i = 0; i < 2000; i++)
        cm_str_add(&text, "<pci busid=\"0:0:0.0\"/>");
    refused(text.text, text.length, "more than 1024 pci");
    cm_str_reset(&text);
    cm_str_add(&text, "<system a=\"");
    for (int i = 0; i < 70000; i++)
        cm_str_add(&text, "x");
    refused(text.text, text.length, "more than 65536 characters");
    cm_str_release(&text);
}

static void test_no_file(void **state)
{
    (void)state;
    struct cm_topology topology;
    unlink(file);
    assert_status(cm_topology_load(file, &topology), CM_USAGE, "cannot open");
    assert_status(cm_topology_load(folder, &topology), CM_USAGE, "is a folder");
    write_bytes("", 0);
    assert_status(cm_topology_load(file, &topology), CM_USAGE, "is empty");
    /* Sparse, so that it costs nothing. */
    assert_int_equal(truncate(file, 1 << 30), 0);
    assert_status(cm_topology_load(file, &topology), CM_USAGE, "more than 16 MiB");
    assert_status(cm_topology_load("/dev/null", &topology), CM_USAGE, "is empty");
}

/* Strange, but a topology: comments, other spellings, text that wants to drive the terminal. */
static void test_accepted(void **state)
{
    (void)state;
    static const char text[] =
        "<?xml version='1.0'?><!-- a - b --><system version='1' new=''>\n"
        "<cpu numaid='-1' vendor='&#27;[31m&lt;b&gt;' familyid='6'>\n"
        "<pci busid='00000000:0A:00.0' class='0x030200' vendor='0x10de' device='0x26b9'>"
        "<future><pci/></future></pci>\n"
        "<pci busid='b:0.0' class='0x020000' vendor='0x1d0f' device='0xefa1' "
        "link_speed='Unknown' link_width='255'><nic><net name='a&amp;&#955;' "
        "speed='-0'/></nic></pci></cpu><!----></system>\n";
    struct cm_topology topology;
    struct cm_str out = CM_STR_INIT;
    write_bytes(text, sizeof text - 1);
    assert_status(cm_topology_load(file, &topology), CM_USAGE, "<pci> inside <future>");
    char *fixed = cm_strdup(text);
    memcpy(strstr(fixed, "<pci/>"), "<xyz/>", 6);
    write_bytes(fixed, sizeof text - 1);
    cm_free(fixed);
    assert_ok(cm_topology_load(file, &topology));
    assert_string_equal(topology.gpus[0].bus_id, "0000:0a:00.0");
    assert_string_equal(topology.gpus[0].name, "NVIDIA L40S");
    assert_string_equal(topology.numa[0].model, "?[31m<b> family 6 model 0");
    assert_string_equal(topology.nics[0].os_name, "a&?");
    assert_true(topology.nics[0].link.maximum <= 0);
    assert_ok(cm_topology_text(&topology, false, &out));
    assert_null(strchr(out.text, 27));
    cm_str_release(&out);
    cm_topology_release(&topology);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bad_text), cmocka_unit_test(test_truncated),
        cmocka_unit_test(test_deep),     cmocka_unit_test(test_many),
        cmocka_unit_test(test_no_file),  cmocka_unit_test(test_accepted),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
