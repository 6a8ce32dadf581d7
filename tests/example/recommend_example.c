/* Scoring inside a program of your own: opens a release, ranks for one visitor, prints.
 *   cc recommend_example.c $(pkg-config --cflags --libs aisle) -o recommend_example
 *   ./recommend_example RELEASE_DIR ITEM_ID…        (newest first) */
#include <aisle.h>
#include <stdio.h>

enum { HISTORY_MAX = 50 };

int main(int argc, char **argv)
{
    struct aisle *aisle = NULL;
    struct aisle_session *session = NULL;
    struct aisle_error error = {0};
    const struct aisle_answer *answer = NULL;
    struct aisle_event history[HISTORY_MAX];
    size_t n = 0;
    if (argc < 2) {
        (void)fprintf(stderr, "usage: %s RELEASE_DIR ITEM_ID...\n", argv[0]);
        return 2;
    }
    for (int i = 2; i < argc && n < HISTORY_MAX; i++) {
        history[n++] = (struct aisle_event){.item_id = argv[i], .type = "view", .time_ms = -1};
    }
    struct aisle_request request = {
        .history = history, .n_history = n, .limit = 5, .explain = true};
    int code = aisle_open(argv[1], &aisle, &error);
    if (code == AISLE_OK) {
        code = aisle_session_open(aisle, &session, &error);
    }
    if (code == AISLE_OK) {
        code = aisle_recommend(session, &request, &answer, &error);
    }
    for (size_t i = 0; code == AISLE_OK && i < answer->n_items; i++) {
        const struct aisle_item *item = &answer->items[i];
        (void)printf("%s\t%.4f\t%s\t%s\n", item->id, item->score, item->source,
                     item->title != NULL ? item->title : "");
    }
    if (code != AISLE_OK) {
        (void)fprintf(stderr, "%s: %s\n", argv[0], error.message);
    }
    aisle_session_close(session);
    aisle_close(aisle);
    return code == AISLE_OK ? 0 : 1;
}
