#ifndef AISLE_TOOLS_COMMANDS_H
#define AISLE_TOOLS_COMMANDS_H

/* The subcommands of `aisle`, one file each. argv[0] is "aisle <name>". They return the exit code:
 * 0 done, 1 failed (one line on stderr), 2 usage. Results go to stdout, all else to stderr. */
int command_synth(int argc, const char *const *argv);
int command_import(int argc, const char *const *argv);
int command_import_model(int argc, const char *const *argv);
int command_train(int argc, const char *const *argv);
int command_build(int argc, const char *const *argv);
int command_verify(int argc, const char *const *argv);
int command_inspect(int argc, const char *const *argv);
int command_serve(int argc, const char *const *argv);
int command_recommend(int argc, const char *const *argv);
int command_evaluate(int argc, const char *const *argv);

#endif
