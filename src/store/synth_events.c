#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/events.h"
#include "base/log.h"
#include "store/csv_write.h"
#include "store/synth_internal.h"

/* What made-up visitors do. In three passes:
 * 1. Sessions are planned: who, when, how many views, which of them go to the cart and are bought.
 *    As the plan fixes the number of events, exactly the wanted number comes out.
 * 2. Sessions are sorted by time and played, so that a visitor's next session can go on where the
 *    last one ended.
 * 3. Events are sorted by time and written, as a shop's log would be.
 *
 * The play gives models something to learn. A visitor has an anchor, the product of interest. The
 * next view is, by falling chance, the next thing that goes with the anchor (of the same product
 * line; visitors who like it dear take the dearer variant), something new by taste (favourite
 * categories, price level, colour, style), the neighbouring alternative to the anchor, or something
 * seen before. Accessories depend on the anchor and on what was seen already, not on the last view
 * alone: a model that sees the whole session can know more than one that sees the last item. */

enum {
    VIEWS_MAX = 15,
    FAVOURITES = 3,
    TASTE_TRIES = 6,
    RETURN_PERCENT = 35, /* sessions that begin with the previous session's anchor */
    CART_PERCENT = 9,    /* of views */
    BUY_PERCENT = 40,    /* of carts */
    CHAIN_PERCENT = 56,  /* the four kinds of next view; the rest is a return in the session */
    TASTE_PERCENT = 20,
    ALTERNATIVE_PERCENT = 14,
    GAP_MIN_MS = 4000,
    GAP_MAX_MS = 420000,
    PROGRESS_EVERY = 8192,
};
static const int64_t DAY_MS = 86400000;
static const int64_t HOUR_MS = 3600000;
static const double GAP_MEDIAN_MS = 38000.0;
static const double GAP_SIGMA = 0.8;
static const double VIEWS_MEAN_MORE = 3.6; /* views after the first, before the cut at VIEWS_MAX */
static const double ACTIVITY_SIGMA = 0.9;
static const uint32_t NO_ITEM = UINT32_MAX;

/* Visits by hour of the day, and by day of the week from Thursday (1 January 1970). */
static const double BY_HOUR[24] = {12, 7,  4,  3,  3,  5,  12, 24, 36, 44, 50, 52,
                                   58, 55, 52, 52, 54, 58, 66, 78, 88, 84, 60, 30};
static const double BY_WEEKDAY[7] = {1.0, 0.95, 1.1, 1.25, 1.0, 0.95, 0.97};

struct session {
    int64_t start_ms;
    uint32_t user;
    uint16_t carts; /* bit v: view v goes to the cart */
    uint16_t buys;
    uint8_t n_views;
};

struct event {
    int64_t time_ms;
    uint32_t user;
    uint32_t item;
    uint32_t session;
    uint8_t type;
    uint8_t quantity;
};

struct taste {
    size_t favourites[FAVOURITES];
    double level; /* standard normal, like the lines' */
    uint32_t colour, adjective;
};

struct play {
    const struct synth_config *config;
    const struct synth_shop *shop;
    struct session *sessions;
    size_t n_sessions;
    size_t sessions_cap;
    uint32_t *last_anchor; /* of each user, NO_ITEM before the first session */
    struct event *events;
    size_t n_events;
    struct rng rng;
    struct alias_table hours;
    struct alias_table activity;
};

static enum status no_memory(struct error *err)
{
    return error_set(err, STATUS_NOMEM, "making up events: no memory");
}

/* ---- planning ---- */

static unsigned count_bits(unsigned mask)
{
    unsigned n = 0;
    for (; mask != 0; mask &= mask - 1) {
        n++;
    }
    return n;
}

static size_t session_events(const struct session *session)
{
    return session->n_views + count_bits(session->carts) + count_bits(session->buys);
}

static struct session plan_session(struct play *play, uint32_t user)
{
    const struct synth_config *config = play->config;
    struct session session = {0};
    int64_t hour = (int64_t)alias_table_draw(&play->hours, &play->rng);
    int64_t begin_ms = config->end_time_ms - (int64_t)config->n_days * DAY_MS;
    session.user = user;
    session.start_ms =
        begin_ms + hour * HOUR_MS + (int64_t)(rng_double(&play->rng) * (double)HOUR_MS);
    double more = -log(1.0 - rng_double(&play->rng)) * VIEWS_MEAN_MORE;
    session.n_views = (uint8_t)(1 + (int)fmin(more, VIEWS_MAX - 1));
    for (unsigned v = 0; v < session.n_views; v++) {
        if (rng_below(&play->rng, 100) < CART_PERCENT) {
            session.carts = (uint16_t)(session.carts | 1u << v);
            if (rng_below(&play->rng, 100) < BUY_PERCENT) {
                session.buys = (uint16_t)(session.buys | 1u << v);
            }
        }
    }
    return session;
}

/* Cuts the last session to the events that are left: purchases go first, then carts, then views. */
static void cut_session(struct session *session, size_t n_left)
{
    if (session_events(session) > n_left) {
        session->buys = 0;
    }
    if (session_events(session) > n_left) {
        session->carts = 0;
    }
    if (session->n_views > n_left) {
        session->n_views = (uint8_t)n_left;
    }
}

static enum status add_session(struct play *play, const struct session *session, struct error *err)
{
    if (play->n_sessions == play->sessions_cap) {
        size_t cap = play->sessions_cap * 2 + 1024;
        struct session *grown = mem_realloc_array(play->sessions, cap, sizeof *grown);
        if (grown == NULL) {
            return no_memory(err);
        }
        play->sessions = grown;
        play->sessions_cap = cap;
    }
    play->sessions[play->n_sessions++] = *session;
    return STATUS_OK;
}

static int compare_sessions(const void *a, const void *b)
{
    const struct session *x = a;
    const struct session *y = b;
    if (x->start_ms != y->start_ms) {
        return x->start_ms < y->start_ms ? -1 : 1;
    }
    if (x->user != y->user) {
        return x->user < y->user ? -1 : 1;
    }
    /* Same user and millisecond: any order that does not depend on the sorting algorithm. */
    int difference = (int)x->n_views - (int)y->n_views;
    difference = difference != 0 ? difference : (int)x->carts - (int)y->carts;
    return difference != 0 ? difference : (int)x->buys - (int)y->buys;
}

static enum status plan(struct play *play, struct error *err)
{
    size_t n_left = play->config->n_events;
    for (size_t i = 0; n_left > 0; i++) {
        /* Everybody comes once, if there are events enough; then by how active they are. */
        uint32_t user =
            i < play->config->n_users ? (uint32_t)i : alias_table_draw(&play->activity, &play->rng);
        struct session session = plan_session(play, user);
        cut_session(&session, n_left);
        enum status status = add_session(play, &session, err);
        if (status != STATUS_OK) {
            return status;
        }
        n_left -= session_events(&session);
    }
    if (play->n_sessions > 1) {
        qsort(play->sessions, play->n_sessions, sizeof *play->sessions, compare_sessions);
    }
    return STATUS_OK;
}

/* ---- playing ---- */

/* A visitor's taste follows from seed and number alone, so it need not be kept. */
static struct taste make_taste(const struct play *play, uint32_t user)
{
    const struct synth_shop *shop = play->shop;
    const struct vocabulary *vocabulary = shop->vocabulary;
    struct taste taste;
    struct rng rng;
    rng_init(&rng, play->config->seed * 0x9e3779b97f4a7c15u + user + 1);
    taste.favourites[0] = alias_table_draw(&shop->by_category, &rng);
    for (size_t i = 1; i < FAVOURITES; i++) {
        taste.favourites[i] = alias_table_draw(&shop->by_category, &rng);
        const struct vocabulary_department *department =
            &vocabulary->departments[vocabulary->categories[taste.favourites[0]].department];
        size_t near = department->first_category + rng_below(&rng, department->n_categories);
        if (rng_below(&rng, 100) < 60 &&
            shop->category_first[near + 1] > shop->category_first[near]) {
            taste.favourites[i] = near;
        }
    }
    taste.level = rng_normal(&rng);
    taste.colour = (uint32_t)rng_below(&rng, UINT32_MAX);
    taste.adjective = (uint32_t)rng_below(&rng, UINT32_MAX);
    return taste;
}

static double liking(const struct play *play, const struct taste *taste, size_t i)
{
    const struct synth_shop *shop = play->shop;
    const struct synth_item *item = &shop->items[i];
    const struct synth_collection *line = &shop->collections[item->collection];
    const struct vocabulary_category *category = &shop->vocabulary->categories[item->category];
    const struct vocabulary_department *department =
        &shop->vocabulary->departments[category->department];
    double distance = (double)line->level - taste->level;
    double chance = exp(-0.5 * distance * distance);
    if (category->colours.n > 0 && item->colour != taste->colour % category->colours.n) {
        chance *= 0.5;
    }
    if (line->adjective != taste->adjective % department->adjectives.n) {
        chance *= 0.6;
    }
    return chance;
}

static bool is_there(const struct play *play, size_t item, int64_t time_ms)
{
    return play->shop->items[item].created_at_ms <= time_ms;
}

static uint32_t draw_by_taste(struct play *play, const struct taste *taste, int64_t time_ms)
{
    const struct synth_shop *shop = play->shop;
    uint64_t roll = rng_below(&play->rng, 100);
    size_t c = alias_table_draw(&shop->by_category, &play->rng);
    if (roll < 90) {
        c = taste->favourites[roll < 50 ? 0 : roll < 75 ? 1 : 2];
    }
    size_t found = shop->category_first[c]; /* never new: always a way out */
    for (int i = 0; i < TASTE_TRIES; i++) {
        size_t item = shop->category_first[c] + alias_table_draw(&shop->popularity[c], &play->rng);
        if (!is_there(play, item, time_ms)) {
            continue;
        }
        found = item;
        if (rng_double(&play->rng) < liking(play, taste, item)) {
            break;
        }
    }
    return (uint32_t)found;
}

static bool was_seen(const uint32_t *seen, size_t n_seen, uint32_t item)
{
    for (size_t i = 0; i < n_seen; i++) {
        if (seen[i] == item) {
            return true;
        }
    }
    return false;
}

/* The next thing that goes with anchor and was not seen yet, or NO_ITEM. */
static uint32_t next_companion(const struct play *play, const struct taste *taste, uint32_t anchor,
                               const uint32_t *seen, size_t n_seen, int64_t time_ms)
{
    const struct synth_shop *shop = play->shop;
    const struct vocabulary_category *category =
        &shop->vocabulary->categories[shop->items[anchor].category];
    for (size_t g = 0; g < category->n_goes_with; g++) {
        size_t c = category->goes_with[g];
        if (shop->category_first[c + 1] == shop->category_first[c]) {
            continue;
        }
        uint32_t item = (uint32_t)synth_companion(shop, anchor, c, taste->level > 0.0 ? 1 : 0);
        if (!was_seen(seen, n_seen, item) && is_there(play, item, time_ms)) {
            return item;
        }
    }
    return NO_ITEM;
}

/* The neighbour of the same category. */
static uint32_t alternative(const struct play *play, uint32_t anchor, int64_t time_ms)
{
    const struct synth_shop *shop = play->shop;
    size_t c = shop->items[anchor].category;
    size_t first = shop->category_first[c];
    size_t n = shop->category_first[c + 1] - first;
    size_t item = first + (anchor - first + 1) % n;
    return is_there(play, item, time_ms) ? (uint32_t)item : (uint32_t)first;
}

static void add_event(struct play *play, uint32_t session, int64_t time_ms, enum event_type type,
                      uint32_t item)
{
    struct event *event = &play->events[play->n_events++];
    event->time_ms = time_ms;
    event->user = play->sessions[session].user;
    event->item = item;
    event->session = session;
    event->type = (uint8_t)type;
    event->quantity = 0;
    if (type != EVENT_VIEW) {
        event->quantity = 1;
    }
    if (type == EVENT_PURCHASE && rng_below(&play->rng, 8) == 0) {
        event->quantity = (uint8_t)(2 + rng_below(&play->rng, 3));
    }
}

static int64_t draw_gap_ms(struct play *play)
{
    double gap = GAP_MEDIAN_MS * exp(GAP_SIGMA * rng_normal(&play->rng));
    return (int64_t)fmin(fmax(gap, GAP_MIN_MS), GAP_MAX_MS);
}

/* The view after seen[0..n_seen); *anchor moves when interest does. */
static uint32_t next_view(struct play *play, const struct taste *taste, uint32_t *anchor,
                          const uint32_t *seen, size_t n_seen, int64_t time_ms)
{
    uint64_t roll = rng_below(&play->rng, 100);
    if (roll < CHAIN_PERCENT) {
        uint32_t item = next_companion(play, taste, *anchor, seen, n_seen, time_ms);
        if (item != NO_ITEM) {
            return item;
        }
        roll = CHAIN_PERCENT; /* all seen: something new */
    }
    if (roll < CHAIN_PERCENT + TASTE_PERCENT) {
        *anchor = draw_by_taste(play, taste, time_ms);
        return *anchor;
    }
    if (roll < CHAIN_PERCENT + TASTE_PERCENT + ALTERNATIVE_PERCENT) {
        *anchor = alternative(play, *anchor, time_ms);
        return *anchor;
    }
    return seen[rng_below(&play->rng, n_seen)];
}

static void play_session(struct play *play, uint32_t number)
{
    const struct session *session = &play->sessions[number];
    const struct taste taste = make_taste(play, session->user);
    uint32_t seen[VIEWS_MAX];
    uint32_t anchor = play->last_anchor[session->user];
    size_t first_event = play->n_events;
    int64_t time_ms = session->start_ms;
    if (anchor == NO_ITEM || rng_below(&play->rng, 100) >= RETURN_PERCENT) {
        anchor = draw_by_taste(play, &taste, time_ms);
    }
    for (unsigned v = 0; v < session->n_views; v++) {
        seen[v] = v == 0 ? anchor : next_view(play, &taste, &anchor, seen, v, session->start_ms);
        add_event(play, number, time_ms, EVENT_VIEW, seen[v]);
        time_ms += draw_gap_ms(play);
        if ((session->carts >> v & 1u) != 0) {
            add_event(play, number, time_ms, EVENT_CART, seen[v]);
            time_ms += draw_gap_ms(play);
        }
    }
    for (unsigned v = 0; v < session->n_views; v++) {
        if ((session->buys >> v & 1u) != 0) {
            add_event(play, number, time_ms, EVENT_PURCHASE, seen[v]);
            time_ms++;
        }
    }
    play->last_anchor[session->user] = anchor;
    /* A session that would run past the end began earlier. */
    int64_t over_ms = play->events[play->n_events - 1].time_ms - (play->config->end_time_ms - 1);
    for (size_t i = first_event; over_ms > 0 && i < play->n_events; i++) {
        play->events[i].time_ms -= over_ms;
    }
}

static int compare_events(const void *a, const void *b)
{
    const struct event *x = a;
    const struct event *y = b;
    if (x->time_ms != y->time_ms) {
        return x->time_ms < y->time_ms ? -1 : 1;
    }
    return x->session < y->session ? -1 : x->session > y->session;
}

/* ---- the file ---- */

static enum status write_events(const struct play *play, const char *path, struct error *err)
{
    static const char title[] = "writing events";
    struct csv_writer csv;
    struct progress progress = {0};
    char text[SYNTH_ID_BYTES];
    enum status status =
        csv_writer_open(&csv, path, "user_id,item_id,timestamp,type,session_id,value", err);
    if (status != STATUS_OK) {
        return status;
    }
    for (size_t i = 0; i < play->n_events; i++) {
        const struct event *event = &play->events[i];
        double price = (double)play->shop->items[event->item].price;
        (void)snprintf(text, sizeof text, "u%06lu", (unsigned long)event->user + 1);
        csv_text(&csv, text);
        synth_item_id(play->shop, event->item, text);
        csv_text(&csv, text);
        csv_int(&csv, event->time_ms);
        csv_text(&csv, event_type_name((enum event_type)event->type));
        (void)snprintf(text, sizeof text, "s%07lu", (unsigned long)event->session + 1);
        csv_text(&csv, text);
        csv_fixed(&csv, event->quantity > 0 ? price * event->quantity : (double)NAN, 2);
        csv_end_row(&csv);
        if (i % PROGRESS_EVERY == 0) {
            progress_show(&progress, title, i, play->n_events, NULL);
        }
    }
    progress_end(&progress, title, play->n_events, NULL);
    return csv_writer_finish(&csv, err);
}

static enum status prepare(struct play *play, struct error *err)
{
    const struct synth_config *config = play->config;
    size_t n_hours = config->n_days * 24;
    size_t n_weights = n_hours > config->n_users ? n_hours : config->n_users;
    int64_t begin_hour = config->end_time_ms / HOUR_MS - (int64_t)n_hours;
    double *weights = mem_alloc_array(n_weights, sizeof *weights);
    play->last_anchor = mem_alloc_array(config->n_users, sizeof *play->last_anchor);
    play->events = mem_alloc_array(config->n_events, sizeof *play->events);
    if (weights == NULL || play->last_anchor == NULL || play->events == NULL) {
        mem_free(weights);
        return no_memory(err);
    }
    for (size_t h = 0; h < n_hours; h++) {
        int64_t hour = begin_hour + (int64_t)h;
        weights[h] = BY_HOUR[(size_t)(hour % 24)] * BY_WEEKDAY[(size_t)(hour / 24 % 7)];
    }
    enum status status = alias_table_init(&play->hours, weights, n_hours, err);
    for (size_t u = 0; u < config->n_users; u++) {
        play->last_anchor[u] = NO_ITEM;
        weights[u] = exp(ACTIVITY_SIGMA * rng_normal(&play->rng));
    }
    if (status == STATUS_OK) {
        status = alias_table_init(&play->activity, weights, config->n_users, err);
    }
    mem_free(weights);
    return status;
}

static void play_all(struct play *play)
{
    static const char title[] = "making up events";
    struct progress progress = {0};
    for (size_t i = 0; i < play->n_sessions; i++) {
        play_session(play, (uint32_t)i);
        if (i % PROGRESS_EVERY == 0) {
            progress_show(&progress, title, play->n_events, play->config->n_events, NULL);
        }
    }
    progress_end(&progress, title, play->n_events, NULL);
    if (play->n_events > 1) {
        qsort(play->events, play->n_events, sizeof *play->events, compare_events);
    }
}

enum status synth_events_write(const struct synth_config *config, const struct synth_shop *shop,
                               const char *path, struct error *err)
{
    struct play play = {.config = config, .shop = shop};
    rng_init(&play.rng, config->seed + 1);
    enum status status = prepare(&play, err);
    if (status == STATUS_OK) {
        status = plan(&play, err);
    }
    if (status == STATUS_OK) {
        play_all(&play);
        status = write_events(&play, path, err);
    }
    alias_table_free(&play.activity);
    alias_table_free(&play.hours);
    mem_free(play.events);
    mem_free(play.last_anchor);
    mem_free(play.sessions);
    return status;
}
