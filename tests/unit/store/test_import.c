#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "base/file.h"
#include "store/import.h"

struct place {
    char root[64];
    char out[PATH_BYTES_MAX];
    char items[PATH_BYTES_MAX];
    char events[PATH_BYTES_MAX];
    char input[PATH_BYTES_MAX];
    char other[PATH_BYTES_MAX];
};

static int make_place(void **state)
{
    struct place *place = mem_calloc(1, sizeof *place);
    if (place == NULL) {
        return -1;
    }
    (void)snprintf(place->root, sizeof place->root, "/tmp/aisle-import-XXXXXX");
    if (mkdtemp(place->root) == NULL ||
        path_join(place->out, place->root, "out", NULL) != STATUS_OK ||
        path_join(place->items, place->out, "items.csv", NULL) != STATUS_OK ||
        path_join(place->events, place->out, "events.csv", NULL) != STATUS_OK ||
        path_join(place->input, place->root, "input.txt", NULL) != STATUS_OK ||
        path_join(place->other, place->root, "other.csv", NULL) != STATUS_OK) {
        return -1;
    }
    *state = place;
    return 0;
}

static int remove_place(void **state)
{
    struct place *place = *state;
    enum status status = dir_remove(place->root, NULL);
    mem_free(place);
    return status == STATUS_OK ? 0 : -1;
}

static void write_text(const char *path, const char *text)
{
    assert_int_equal(file_write_atomic(path, text, strlen(text), NULL), STATUS_OK);
}

static enum status import_text(const struct place *place, const char *format, const char *text,
                               const struct option_list *map, struct import_counts *counts,
                               struct error *err)
{
    const char *paths[] = {place->input};
    const struct import_config config = {
        .format = format, .out_dir = place->out, .paths = paths, .n_paths = 1, .map = map};
    write_text(place->input, text);
    return import_run(&config, counts, err);
}

static void assert_file_is(const char *path, const char *expected)
{
    struct buf text;
    buf_init(&text, 1 << 20);
    assert_int_equal(file_read(path, &text, NULL), STATUS_OK);
    assert_string_equal(buf_text(&text), expected);
    buf_free(&text);
}

static uint64_t n_dropped(const struct import_counts *counts, const char *reason)
{
    for (size_t i = 0; i < counts->n_drop_reasons; i++) {
        if (strcmp(counts->dropped[i].reason, reason) == 0) {
            return counts->dropped[i].n;
        }
    }
    return 0;
}

static void import_run_online_retail_keeps_purchases_of_products(void **state)
{
    const struct place *place = *state;
    struct import_counts counts;
    struct error err;
    const char *text =
        "InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country\n"
        "1,85123A,HEART HOLDER ,6,2010-12-01 08:26:00,2.55,17850,United Kingdom\n"
        "1,POST,POSTAGE,1,2010-12-01 08:26:00,18.00,17850,United Kingdom\n"
        "C2,85123A,HEART HOLDER,-6,2010-12-01 09:00:00,2.55,17850,United Kingdom\n"
        "3,85123A,damaged,-3,2010-12-01 09:10:00,0.0,,United Kingdom\n"
        "4,85123A,\"HEART \"\"RED\"\" HOLDER, BIG\",1,12/1/2010 9:30,2.95,,France\n"
        "5,85123A,\"HEART \"\"RED\"\" HOLDER, BIG\",2,2010-12-02 09:00:00,2.95,12345.0,France\n"
        "5,71053,,2,2010-12-02 09:00:00,1.25,12345.0,France\n"
        "5,71053,LANTERN,2,2010-12-02,x,12345.0,France\n"
        "5,71053,LANTERN,2,yesterday,1.25,12345.0,France\n"
        "5,gift_0001_20,VOUCHER,1,2010-12-02 09:00:00,20,12345.0,France\n"
        "5,DCGSSGIRL,PARTY BAG,-1,2010-12-02 09:00:00,3.25,12345.0,France\n"
        "5,DCGSSGIRL,PARTY BAG,1,2010-12-02 09:00:00,3.25,12345.0,France\n";
    assert_int_equal(import_text(place, "online-retail", text, NULL, &counts, &err), STATUS_OK);
    assert_int_equal(counts.n_rows, 12);
    assert_int_equal(counts.n_events, 5);
    assert_int_equal(counts.n_items, 3);
    assert_int_equal(counts.n_users, 3);
    assert_int_equal(counts.n_sessions, 3);
    assert_int_equal(n_dropped(&counts, "cancelled"), 1);
    assert_int_equal(n_dropped(&counts, "no price"), 1);
    assert_int_equal(n_dropped(&counts, "no quantity"), 1);
    assert_int_equal(n_dropped(&counts, "not a product"), 2);
    assert_int_equal(n_dropped(&counts, "not a number"), 1);
    assert_int_equal(n_dropped(&counts, "not a time"), 1);
    assert_file_is(place->items, "id,title,category,brand,price,currency\n"
                                 "85123A,\"HEART \"\"RED\"\" HOLDER, BIG\",,,2.95,GBP\n"
                                 "71053,Item 71053,,,1.25,GBP\n"
                                 "DCGSSGIRL,PARTY BAG,,,3.25,GBP\n");
    assert_file_is(place->events, "user_id,item_id,timestamp,type,session_id,value\n"
                                  "17850,85123A,1291191960000,purchase,1,15.30\n"
                                  "invoice-4,85123A,1291195800000,purchase,4,2.95\n"
                                  "12345,85123A,1291280400000,purchase,5,5.90\n"
                                  "12345,71053,1291280400000,purchase,5,2.50\n"
                                  "12345,DCGSSGIRL,1291280400000,purchase,5,3.25\n");
}

static void import_run_sequences_first_word_is_the_user(void **state)
{
    const struct place *place = *state;
    struct import_counts counts;
    assert_int_equal(
        import_text(place, "sequences", "7\t10 11\t-\t10\r\n\n8 12", NULL, &counts, NULL),
        STATUS_OK);
    assert_int_equal(counts.n_events, 4);
    assert_int_equal(counts.n_users, 2);
    assert_int_equal(counts.n_sessions, 0);
    assert_int_equal(n_dropped(&counts, "placeholder"), 1);
    assert_file_is(place->items, "id,title,category,brand,price,currency\n"
                                 "10,Item 10,,,,\n11,Item 11,,,,\n12,Item 12,,,,\n");
    assert_file_is(place->events, "user_id,item_id,timestamp,type,session_id,value\n"
                                  "7,10,1577836800000,view,,\n"
                                  "7,11,1577836801000,view,,\n"
                                  "7,10,1577836802000,view,,\n"
                                  "8,12,1577836803000,view,,\n");
}

static void import_run_sessions_each_line_is_its_own_user(void **state)
{
    const struct place *place = *state;
    struct import_counts counts;
    assert_int_equal(import_text(place, "sessions", "5 6\n6\n", NULL, &counts, NULL), STATUS_OK);
    assert_int_equal(counts.n_sessions, 2);
    assert_file_is(place->events, "user_id,item_id,timestamp,type,session_id,value\n"
                                  "s1,5,1577836800000,view,s1,\n"
                                  "s1,6,1577836801000,view,s1,\n"
                                  "s2,6,1577836802000,view,s2,\n");
}

static void import_run_sessions_over_long_id_is_dropped(void **state)
{
    const struct place *place = *state;
    struct import_counts counts;
    char text[2 * 128 + 16];
    memset(text, 'a', 128);
    text[128] = ' ';
    memset(text + 129, 'b', 129);
    text[258] = '\0';
    assert_int_equal(import_text(place, "sessions", text, NULL, &counts, NULL), STATUS_OK);
    assert_int_equal(counts.n_events, 1);
    assert_int_equal(n_dropped(&counts, "invalid id"), 1);
}

static void import_run_clicks_times_may_have_fractions(void **state)
{
    const struct place *place = *state;
    struct import_counts counts;
    assert_int_equal(import_text(place, "clicks",
                                 "SessionId\tItemId\tTime\n3\t21\t1396437466.94\n"
                                 "3\t22\t1396438212\n4\t21\t2014-04-07T10:51:09.277Z\n",
                                 NULL, &counts, NULL),
                     STATUS_OK);
    assert_int_equal(counts.n_sessions, 2);
    assert_file_is(place->events, "user_id,item_id,timestamp,type,session_id,value\n"
                                  "3,21,1396437466940,view,3,\n"
                                  "3,22,1396438212000,view,3,\n"
                                  "4,21,1396867869277,view,4,\n");
}

static void import_run_retailrocket_joins_the_newest_category(void **state)
{
    const struct place *place = *state;
    const char *paths[] = {place->other, place->input};
    const struct import_config config = {
        .format = "retailrocket", .out_dir = place->out, .paths = paths, .n_paths = 2};
    struct import_counts counts;
    write_text(place->other, "timestamp,itemid,property,value\n"
                             "1441508400000,31,categoryid,1114\n"
                             "1435460400000,31,categoryid,1338\n"
                             "1435460400000,32,888,n12.000\n"
                             "1435460400000,99,categoryid,5\n");
    write_text(place->input, "timestamp,visitorid,event,itemid,transactionid\n"
                             "1433221332117,257597,view,31,\n"
                             "1433224214164,992329,addtocart,32,\n"
                             "1433221999827,111016,transaction,32,7\n");
    assert_int_equal(import_run(&config, &counts, NULL), STATUS_OK);
    assert_int_equal(counts.n_events, 3);
    assert_file_is(place->items, "id,title,category,brand,price,currency\n"
                                 "31,Item 31,Category 1114,,,\n32,Item 32,,,,\n");
    assert_file_is(place->events, "user_id,item_id,timestamp,type,session_id,value\n"
                                  "257597,31,1433221332117,view,,\n"
                                  "992329,32,1433224214164,cart,,\n"
                                  "111016,32,1433221999827,purchase,,\n");
}

static void import_run_retailrocket_takes_session_files_too(void **state)
{
    const struct place *place = *state;
    struct import_counts counts;
    assert_int_equal(import_text(place, "retailrocket", "1 2 1\n3 4\n", NULL, &counts, NULL),
                     STATUS_OK);
    assert_int_equal(counts.n_sessions, 2);
    assert_int_equal(counts.n_events, 5);
}

static void import_run_generic_follows_the_mapping(void **state)
{
    const struct place *place = *state;
    const char *values[] = {"user_id=customer,item_id=sku", "timestamp=at", "type=what,price=cost",
                            "title=name"};
    const struct option_list map = {values, 4};
    struct import_counts counts;
    assert_int_equal(import_text(place, "generic",
                                 "customer,sku,at,what,cost,name\n"
                                 "u1,a,2024-01-01T00:00:00Z,buy,3.5,\"A, the first\"\n"
                                 "u2,a,1704067300500,view,,other\n"
                                 "u2,b,never,view,,\n"
                                 ",b,1704067300,view,,\n"
                                 "u3,b,1704067300,poke,,\n",
                                 &map, &counts, NULL),
                     STATUS_OK);
    assert_int_equal(counts.n_rows, 5);
    assert_int_equal(n_dropped(&counts, "not a time"), 1);
    assert_int_equal(n_dropped(&counts, "missing user, item or time"), 1);
    assert_int_equal(n_dropped(&counts, "unknown event type"), 1);
    assert_file_is(place->items, "id,title,category,brand,price,currency\n"
                                 "a,\"A, the first\",,,3.50,\n");
    assert_file_is(place->events, "user_id,item_id,timestamp,type,session_id,value\n"
                                  "u1,a,1704067200000,purchase,,\n"
                                  "u2,a,1704067300500,view,,\n");
}

static void assert_nothing_written(const struct place *place)
{
    assert_false(file_exists(place->items));
    assert_false(file_exists(place->events));
    /* and no temporary file: the folder, where there is one, is empty */
    if (file_exists(place->out)) {
        assert_int_equal(remove(place->out), 0);
    }
}

static void import_run_faults_leave_nothing(void **state)
{
    const struct place *place = *state;
    static const struct {
        const char *format, *map, *text;
        enum status status;
        const char *message;
    } cases[] = {
        {"excel", NULL, "x", STATUS_INVALID, "online-retail"},
        {"generic", NULL, "a,b\n1,2\n", STATUS_INVALID, "user_id"},
        {"generic", "user=a", "a,b\n1,2\n", STATUS_INVALID, "session_id"},
        {"generic", "user_id", "a,b\n1,2\n", STATUS_INVALID, "FIELD=COLUMN"},
        {"generic", "user_id=", "a,b\n1,2\n", STATUS_INVALID, "FIELD=COLUMN"},
        {"clicks", NULL, "SessionId\tItemId\tTime\n1\t2\tx\n", STATUS_INVALID, "not a time"},
        {"sessions", NULL, "1 \xff\n", STATUS_INVALID, "UTF-8"},
        {"sessions", NULL, "", STATUS_INVALID, "no event"},
        {"retailrocket", NULL, "", STATUS_INVALID, "empty"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const char *values[] = {cases[i].map};
        const struct option_list map = {values, cases[i].map != NULL ? 1 : 0};
        struct import_counts counts;
        struct error err = {0};
        enum status status =
            import_text(place, cases[i].format, cases[i].text, &map, &counts, &err);
        if (status != cases[i].status || strstr(err.message, cases[i].message) == NULL) {
            print_error("case %zu: %s: %s\n", i, status_text(status), err.message);
        }
        assert_int_equal(status, cases[i].status);
        assert_non_null(strstr(err.message, cases[i].message));
        assert_nothing_written(place);
    }
}

static void import_run_missing_file_is_named(void **state)
{
    const struct place *place = *state;
    static const char *const formats[] = {"online-retail", "retailrocket", "sequences",
                                          "sessions",      "clicks",       "generic"};
    const char *paths[] = {"/nonexistent/file"};
    for (size_t i = 0; i < sizeof formats / sizeof formats[0]; i++) {
        const struct import_config config = {
            .format = formats[i], .out_dir = place->out, .paths = paths, .n_paths = 1};
        struct import_counts counts;
        struct error err;
        assert_int_equal(import_run(&config, &counts, &err), STATUS_NOT_FOUND);
        assert_non_null(strstr(err.message, "/nonexistent/file"));
        assert_nothing_written(place);
    }
}

static void import_run_out_of_memory_is_clean(void **state)
{
    const struct place *place = *state;
    static const struct {
        const char *format, *text;
    } cases[] = {
        {"online-retail",
         "InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country\n"
         "1,85123A,HEART,6,2010-12-01 08:26:00,2.55,17850,United Kingdom\n"},
        {"sequences", "1 2 3\n"},
        {"clicks", "SessionId\tItemId\tTime\n3\t21\t1396437466.94\n"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        enum status status = STATUS_NOMEM;
        for (int n = 1; status != STATUS_OK; n++) {
            const char *paths[] = {place->input};
            const struct import_config config = {
                .format = cases[i].format, .out_dir = place->out, .paths = paths, .n_paths = 1};
            struct import_counts counts;
            write_text(place->input, cases[i].text);
            mem_fail_nth(n);
            status = import_run(&config, &counts, NULL);
            mem_fail_nth(0);
            assert_true(status == STATUS_OK || status == STATUS_NOMEM);
            assert_true(n < 1000);
        }
    }
}

int main(void)
{
#define WITH_PLACE(test) cmocka_unit_test_setup_teardown(test, make_place, remove_place)
    const struct CMUnitTest tests[] = {
        WITH_PLACE(import_run_online_retail_keeps_purchases_of_products),
        WITH_PLACE(import_run_sequences_first_word_is_the_user),
        WITH_PLACE(import_run_sessions_each_line_is_its_own_user),
        WITH_PLACE(import_run_sessions_over_long_id_is_dropped),
        WITH_PLACE(import_run_clicks_times_may_have_fractions),
        WITH_PLACE(import_run_retailrocket_joins_the_newest_category),
        WITH_PLACE(import_run_retailrocket_takes_session_files_too),
        WITH_PLACE(import_run_generic_follows_the_mapping),
        WITH_PLACE(import_run_faults_leave_nothing),
        WITH_PLACE(import_run_missing_file_is_named),
        WITH_PLACE(import_run_out_of_memory_is_clean),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
