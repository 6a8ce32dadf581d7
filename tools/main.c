#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "commands.h"
#include "common.h"

/* `aisle <command> …`: finds the command and hands over. A command added is a row here, a line in
 * commands.h and a file in CMakeLists.txt. */

struct command {
    const char *name;
    const char *about;
    int (*run)(int argc, const char *const *argv);
};

static const struct command COMMANDS[] = {
    {"synth", "make up a shop: items.csv and events.csv", command_synth},
    {"serve", "answer over HTTP from a release", command_serve},
    {"import", "turn public data sets and other shops' files into items and events",
     command_import},
    {"train", "learn item vectors and a user model from events", command_train},
    {"import-model", "take over a user model that another program trained", command_import_model},
    {"build", "make a release of items and a model, measure it, publish it", command_build},
    {"recommend", "ask a release for one visitor, without a server", command_recommend},
    {"evaluate", "measure how good a release is", command_evaluate},
    {"verify", "check a release the way a server does before it serves it", command_verify},
    {"inspect", "show what a release is made of and what was measured", command_inspect},
};
enum {
    N_COMMANDS = sizeof COMMANDS / sizeof COMMANDS[0],
    COMMAND_NAME_MAX = 32,
    SUGGESTION_DISTANCE_MAX = 3,
};

static void print_help(FILE *out)
{
    (void)fputs("aisle - recommendations for shops: train offline, serve online\n\n"
                "Usage: aisle COMMAND [options]\n\n"
                "Commands:\n",
                out);
    for (size_t i = 0; i < N_COMMANDS; i++) {
        (void)fprintf(out, "  %-13s %s\n", COMMANDS[i].name, COMMANDS[i].about);
    }
    (void)fputs("\naisle COMMAND --help describes a command, with examples.\n"
                "aisle --version prints the version.\n",
                out);
}

static size_t smallest(size_t a, size_t b, size_t c)
{
    size_t least = a < b ? a : b;
    return least < c ? least : c;
}

/* Levenshtein distance, in one row; both texts up to COMMAND_NAME_MAX bytes. */
static size_t edit_distance(const char *a, const char *b)
{
    size_t row[COMMAND_NAME_MAX + 1];
    size_t b_len = strlen(b);
    for (size_t k = 0; k <= b_len; k++) {
        row[k] = k;
    }
    for (size_t i = 0; a[i] != '\0'; i++) {
        size_t diagonal = row[0];
        row[0] = i + 1;
        for (size_t k = 0; k < b_len; k++) {
            size_t above = row[k + 1];
            row[k + 1] = smallest(above + 1, row[k] + 1, diagonal + (a[i] == b[k] ? 0 : 1));
            diagonal = above;
        }
    }
    return row[b_len];
}

/* The command most like name, or NULL when none is. */
static const char *suggestion(const char *name)
{
    const char *best = NULL;
    size_t best_distance = SUGGESTION_DISTANCE_MAX;
    if (strlen(name) > COMMAND_NAME_MAX) {
        return NULL;
    }
    for (size_t i = 0; i < N_COMMANDS; i++) {
        size_t distance = edit_distance(name, COMMANDS[i].name);
        if (distance < best_distance) {
            best = COMMANDS[i].name;
            best_distance = distance;
        }
    }
    return best;
}

static int unknown_command(const char *name)
{
    const char *similar = suggestion(name);
    if (similar != NULL) {
        (void)fprintf(stderr, "aisle: no command \"%.80s\"; did you mean \"%s\"?\n", name, similar);
    } else {
        (void)fprintf(stderr, "aisle: no command \"%.80s\" (see aisle --help)\n", name);
    }
    return EXIT_CODE_USAGE;
}

static int run(const struct command *command, int argc, char **argv)
{
    char title[COMMAND_NAME_MAX + sizeof "aisle "];
    (void)snprintf(title, sizeof title, "aisle %s", command->name);
    argv[1] = title;
    return command->run(argc - 1, (const char *const *)&argv[1]);
}

/* OpenMP's threads spin while they wait unless told otherwise when the program is loaded; on a
 * machine that does other work too, training was up to 4 times slower for it. The program starts
 * itself anew once; whoever has set a policy keeps it. */
static void wait_without_spinning(char **argv)
{
    /* NOLINTNEXTLINE(concurrency-mt-unsafe) before any thread */
    if (getenv("OMP_WAIT_POLICY") == NULL && setenv("OMP_WAIT_POLICY", "passive", 0) == 0) {
        (void)execv("/proc/self/exe", argv); /* where that fails, training is slower */
    }
}

int main(int argc, char **argv)
{
    /* A reader that went away is an error of write(2), which is reported, not a silent death. */
    (void)signal(SIGPIPE, SIG_IGN);
    if (argc < 2) {
        print_help(stderr);
        return EXIT_CODE_USAGE;
    }
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 ||
        strcmp(argv[1], "help") == 0) {
        print_help(stdout);
        return EXIT_CODE_DONE;
    }
    if (strcmp(argv[1], "--version") == 0) {
        (void)printf("aisle %s%s\n", AISLE_VERSION,
                     AISLE_COMMIT[0] != '\0' ? " (" AISLE_COMMIT ")" : "");
        return EXIT_CODE_DONE;
    }
    if (strcmp(argv[1], "train") == 0) {
        wait_without_spinning(argv);
    }
    for (size_t i = 0; i < N_COMMANDS; i++) {
        if (strcmp(argv[1], COMMANDS[i].name) == 0) {
            return run(&COMMANDS[i], argc, argv);
        }
    }
    return unknown_command(argv[1]);
}
