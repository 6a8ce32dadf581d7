#include "index_fixture.h"

static void assert_kind(const char *factory, const char *canonical)
{
    struct index_kind kind;
    struct error err = {.message = ""};
    char name[INDEX_NAME_BYTES];
    if (index_kind_parse(factory, &kind, &err) != STATUS_OK) {
        fail_msg("%s: %s", factory, err.message);
    }
    index_kind_name(&kind, name);
    assert_string_equal(name, canonical);
}

static void index_kind_parse_known_gives_canonical_name(void **state)
{
    (void)state;
    assert_kind("Flat", "Flat");
    assert_kind("HNSW16", "HNSW16");
    assert_kind("HNSW32,Flat", "HNSW32");
    assert_kind("HNSW32,SQfp16", "HNSW32,SQfp16");
    assert_kind("IVF64,Flat", "IVF64,Flat");
    assert_kind("IVF4096,SQfp16", "IVF4096,SQfp16");
    assert_kind("IVF64_HNSW16,SQ8", "IVF64_HNSW16,SQ8");
    assert_kind("IVF64,PQ16", "IVF64,PQ16");
    assert_kind("IVF64,PQ16x8", "IVF64,PQ16");
    assert_kind("IVF64,PQ16x6,RFlat", "IVF64,PQ16x6,RFlat");
    assert_kind("IVF64,PQ16x4fs,RFlat", "IVF64,PQ16x4fs,RFlat");
    assert_kind("IVF64,PQ16x4fsr", "IVF64,PQ16x4fsr");
}

static void index_kind_parse_unknown_is_invalid(void **state)
{
    (void)state;
    static const char *const unknown[] = {"",
                                          "flat",
                                          "Flat,",
                                          "IVF,Flat",
                                          "IVF0,Flat",
                                          "IVF64",
                                          "IVF64,",
                                          "IVF064,Flat",
                                          "IVF-1,Flat",
                                          "IVF1048577,Flat",
                                          "HNSW1",
                                          "HNSW257",
                                          "HNSW16,PQ8",
                                          "IVF64,PQ0",
                                          "IVF64,PQ16x9",
                                          "IVF64,LSH",
                                          "OPQ16,IVF64,PQ16",
                                          "IVF8(Index7),Flat",
                                          "IVF64,Flat,RFlat,RFlat",
                                          "PQ16",
                                          "IVF99999999999999999999,Flat",
                                          "IVF64,Flat ",
                                          "HNSW32,Flat,RFlat"};
    for (size_t i = 0; i < sizeof unknown / sizeof unknown[0]; i++) {
        struct index_kind kind = {.n_lists = 4711};
        struct error err = {.message = ""};
        assert_int_equal(index_kind_parse(unknown[i], &kind, &err), STATUS_INVALID);
        assert_int_equal(kind.n_lists, 4711);
        assert_non_null(strstr(err.message, unknown[i]));
    }
}

static void index_kind_auto_chooses_by_size(void **state)
{
    (void)state;
    static const struct {
        size_t n;
        const char *name;
    } cases[] = {{1, "Flat"},
                 {EXACT_MAX_ITEMS - 1, "Flat"},
                 {EXACT_MAX_ITEMS, "IVF512,SQfp16"},
                 {100000, "IVF1024,SQfp16"},
                 {1000000, "IVF4096,SQfp16"},
                 {20000000, "IVF16384_HNSW32,SQfp16"},
                 {1000000000, "IVF65536_HNSW32,SQfp16"}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char name[INDEX_NAME_BYTES];
        struct index_kind kind = index_kind_auto(cases[i].n);
        index_kind_name(&kind, name);
        assert_string_equal(name, cases[i].name);
        assert_true(kind.n_lists * 39 <= cases[i].n);
    }
}

static enum status parse_effort(const char *factory, const char *text, struct index_effort *out)
{
    struct index_kind kind;
    struct error err;
    assert_int_equal(index_kind_parse(factory, &kind, &err), STATUS_OK);
    return index_effort_parse(text, &kind, out, &err);
}

static void index_effort_parse_known_reads_back(void **state)
{
    (void)state;
    struct index_effort effort;
    char name[INDEX_NAME_BYTES];
    assert_int_equal(parse_effort("IVF64,Flat", "nprobe=64", &effort), STATUS_OK);
    assert_int_equal(effort.n_probes, 64);
    assert_int_equal(parse_effort("HNSW16", "efSearch=100", &effort), STATUS_OK);
    index_effort_name(&effort, name);
    assert_string_equal(name, "efSearch=100");
    assert_int_equal(parse_effort("IVF64,PQ8x4fs,RFlat", "nprobe=3,k_factor_rf=4", &effort),
                     STATUS_OK);
    index_effort_name(&effort, name);
    assert_string_equal(name, "k_factor_rf=4,nprobe=3");
    assert_int_equal(parse_effort("Flat", "", &effort), STATUS_OK);
    index_effort_name(&effort, name);
    assert_string_equal(name, "");
}

static void index_effort_parse_unfit_is_invalid(void **state)
{
    (void)state;
    static const struct {
        const char *factory;
        const char *text;
    } cases[] = {{"Flat", "nprobe=1"},
                 {"HNSW16", "nprobe=1"},
                 {"IVF64,Flat", "efSearch=16"},
                 {"IVF64,Flat", "nprobe=0"},
                 {"IVF64,Flat", "nprobe=65"},
                 {"IVF64,Flat", "nprobe=1,nprobe=2"},
                 {"IVF64,Flat", "nprobe=1,"},
                 {"IVF64,Flat", "nprobe=1 "},
                 {"IVF64,Flat", "nprobe=-1"},
                 {"IVF64,Flat", "nprobe=inf"},
                 {"IVF64,Flat", "k_factor_rf=2"},
                 {"IVF64,PQ8,RFlat", "k_factor_rf=65"},
                 {"HNSW16", "efSearch=2049"},
                 {"IVF8192,Flat", "nprobe=4097"}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct index_effort effort = {.n_probes = 4711};
        assert_int_equal(parse_effort(cases[i].factory, cases[i].text, &effort), STATUS_INVALID);
        assert_int_equal(effort.n_probes, 4711);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(index_kind_parse_known_gives_canonical_name),
        cmocka_unit_test(index_kind_parse_unknown_is_invalid),
        cmocka_unit_test(index_kind_auto_chooses_by_size),
        cmocka_unit_test(index_effort_parse_known_reads_back),
        cmocka_unit_test(index_effort_parse_unfit_is_invalid),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
