/* main.c - the table of subcommands, and what the shell asks of a program: help, version,
 * completion, a manual page, exit codes. The only file that exits.
 * SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <gsl/gsl_errno.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/conf.h"
#include "base/err.h"
#include "base/paths.h"
#include "base/prov.h"
#include "base/stop.h"
#include "base/utf8.h"
#include "bench/cmd_bench.h"
#include "bench/cmd_calibrate.h"
#include "bench/cmd_engine_run.h"
#include "bench/cmd_validate.h"
#include "plots/cmd_plot.h"
#include "plots/cmd_report.h"
#include "sim/cmd_simulate.h"
#include "sim/cmd_verify.h"
#include "traces/cmd_import.h"
#include "traces/cmd_trace.h"

static int cmd_help(int argc, char **argv);
static int cmd_completion(int argc, char **argv);
static int cmd_man(int argc, char **argv);
static int cmd_version(int argc, char **argv);

/* clang-format off */
static const struct verb {
    const char *name;
    int (*run)(int argc, char **argv);   /* argv[0] is the name; returns the exit status */
    const char *help;                    /* one line, no full stop */
    const char *parts;                   /* words it takes first, with a help for each; NULL */
} verbs[] = {
    { "simulate",   cmd_simulate,   "predict what a scenario does: throughput, latency, SLO", NULL },
    { "verify",     cmd_verify,     "is this strategy possible on this hardware, and if not, what is", NULL },
    { "engine",     cmd_engine_run, "run a model for real on this machine, TP x PP: serve a scenario, or generate",
      "run generate recover" },
    { "bench",      cmd_bench,      "microbenchmarks of this machine, for calibrate", NULL },
    { "calibrate",  cmd_calibrate,  "constants of the kernel laws from what was measured on a machine", NULL },
    { "validate",   cmd_validate,   "predicted runs against measured ones: how far off, beside the noise", NULL },
    { "plot",       cmd_plot,       "figures of run files, by gnuplot", NULL },
    { "report",     cmd_report,     "run files as one HTML page: answer, tables, figures", NULL },
    { "trace",      cmd_trace,      "describe, convert or synthesise a request trace",
      "describe convert synth" },
    { "import",     cmd_import,     "results of other tools, by our definitions and by theirs", NULL },
    { "help",       cmd_help,       "this list, or the help of one verb", NULL },
    { "completion", cmd_completion, "print a completion script for bash or zsh", NULL },
    { "man",        cmd_man,        "print the manual page (roff)", NULL },
    { "version",    cmd_version,    "version, revision, compiler, CUDA", NULL },
};
/* clang-format on */
enum { N_VERB = sizeof verbs / sizeof *verbs, WORDS_BYTES = 512 };

static const char about[] =
    "A calibrated simulator of LLM serving clusters: it predicts throughput, latency and cost of "
    "a\n"
    "model on given hardware, tensor and pipeline parallelism, policy and load, with error bars.\n";
static const char exits[] =
    "  0    fine\n"
    "  1    ran, but a check failed (SLO missed, regression, claim refuted)\n"
    "  2    wrong command line, scenario, trace or other input file, or none of that name\n"
    "  3    inconclusive\n"
    "  4    invalid measurement\n"
    "  5    reading, writing or a device failed\n"
    "  130  interrupted; a result file is whole or not there\n";
/* %s: where `make install` has put them */
static const char files[] =
    "What a scenario or an option names (hardware, model, trace, scenario) is a file as it is "
    "or beside\n"
    "the scenario, else one of those that came with the program. They are looked for in, in this "
    "order:\n"
    "  $ORRERY_HOME, where that is set\n"
    "  the directory of the program\n"
    "  ../share/orrery from there, for an installation that was moved\n"
    "  %s\n"
    "  the current directory\n"
    "So a program that is copied elsewhere by itself finds no models until ORRERY_HOME names the "
    "directory\n"
    "that holds scenarios and plots.\n";

static int complain(const struct err *e)
{
    fprintf(stderr, "orrery: %s\n", e->text);
    return 2;
}

static const char *verb_words(char *buf)
{
    size_t at = 0;
    for (int i = 0; i < N_VERB; i++)
        at += (size_t)snprintf(buf + at, WORDS_BYTES - at, "%s%s", i ? " " : "", verbs[i].name);
    return buf;
}

/* The verb of that name, or NULL with a sentence that names the nearest one. */
static const struct verb *verb_find(const char *name, struct err *e)
{
    char words[WORDS_BYTES], near[WORDS_BYTES], shown[64];
    for (int i = 0; i < N_VERB; i++)
        if (strcmp(verbs[i].name, name) == 0) return &verbs[i];
    utf8_quote(name, shown, sizeof shown);
    const char *nearest = conf_nearest(name, verb_words(words), near, sizeof near);
    if (nearest)
        err_set(e, ST_USAGE, "no verb '%s'; did you mean '%s'?", shown, nearest);
    else
        err_set(e, ST_USAGE, "no verb '%s'; there are: %s", shown, words);
    return NULL;
}

static void print_help(FILE *f)
{
    fprintf(f, "orrery VERB [FILE...] [--key=value...]\n\n%s\nVerbs:\n", about);
    for (int i = 0; i < N_VERB; i++) fprintf(f, "  %-12s%s\n", verbs[i].name, verbs[i].help);
    fprintf(f,
            "\n`orrery help VERB` lists a verb's options. Results go to standard output, messages "
            "to\nstandard error. Exit status:\n%s\nFiles\n",
            exits);
    fprintf(f, files, paths_installed());
}

/* Whether a blank-separated list has the word. */
static bool is_part(const char *parts, const char *word)
{
    size_t n = strlen(word);
    for (const char *p = parts; p && *p; p += strcspn(p, " "), p += *p == ' ')
        if (strcspn(p, " ") == n && strncmp(p, word, n) == 0) return true;
    return false;
}

/* `orrery VERB --help`, or of one of its parts. */
static int help_of(const struct verb *v, const char *part)
{
    char name[32], word[32], flag[] = "--help";
    char *args[] = { name, word, flag, NULL };
    snprintf(name, sizeof name, "%s", v->name);
    snprintf(word, sizeof word, "%s", part ? part : flag);
    if (!part) args[2] = NULL;
    return v->run(part ? 3 : 2, args);
}

static int cmd_help(int argc, char **argv)
{
    struct err e = { 0 };
    const struct verb *v = argc > 1 && argv[1][0] != '-' ? verb_find(argv[1], &e) : NULL;
    const char *part = argc > 2 ? argv[2] : NULL;
    char shown[64];
    if (e.status != ST_OK) return complain(&e);
    if (argc > 3 || (part && !(v && v->parts)))
        err_set(&e, ST_USAGE, "help takes one verb");
    else if (part && !is_part(v->parts, part))
        err_set(&e, ST_USAGE, "%s has no '%s'; there are: %s", v->name,
                utf8_quote(part, shown, sizeof shown), v->parts);
    if (e.status != ST_OK) return complain(&e);
    if (v && v->run != cmd_help) return help_of(v, part);
    print_help(stdout);
    return 0;
}

static int cmd_version(int argc, char **argv)
{
    struct prov p;
    prov_collect(&p, argc, argv);
    printf("orrery %s, revision %s, %s (%s), %s\n", p.version, p.revision, p.compiler, p.flags,
           prov_cuda());
    prov_release(&p);
    return 0;
}

/* ---- for the shell: options are asked of the program itself, so a script never lags behind it */

#define KEYS "sed -n 's/^  \\(--[a-z0-9_.]*=\\).*/\\1/p'"

static void print_bash(void)
{
    char words[WORDS_BYTES];
    verb_words(words);
    printf(
        "# bash completion of orrery, made by `orrery completion bash`\n"
        "_orrery() {\n"
        "    local cur=${COMP_WORDS[COMP_CWORD]} verb=${COMP_WORDS[1]}\n"
        "    if [ \"$COMP_CWORD\" -eq 1 ] || { [ \"$verb\" = help ] && [ \"$COMP_CWORD\" -eq 2 ]; "
        "}; "
        "then\n"
        "        COMPREPLY=($(compgen -W '%s' -- \"$cur\"))\n"
        "        return\n"
        "    fi\n"
        "    local at=1 parts= part=\n"
        "    [ \"$verb\" = help ] && at=2 && verb=${COMP_WORDS[2]}\n"
        "    case $verb in\n"
        "    completion) parts='bash zsh' ;;\n",
        words);
    for (int i = 0; i < N_VERB; i++)
        if (verbs[i].parts)
            printf("    %s) parts='%s' part=${COMP_WORDS[at + 1]} ;;\n", verbs[i].name,
                   verbs[i].parts);
    printf("    esac\n"
           "    if [ \"${cur#-}\" != \"$cur\" ]; then\n"
           "        [[ \" $parts \" == *\" $part \"* ]] || part=\n"
           "        COMPREPLY=($(compgen -W \"$(\"${COMP_WORDS[0]}\" \"$verb\" $part --help "
           "2>/dev/null |\n"
           "            " KEYS ")\" -- \"$cur\"))\n"
           "        compopt -o nospace\n"
           "    elif [ \"$COMP_CWORD\" -eq $((at + 1)) ]; then\n"
           "        COMPREPLY=($(compgen -W \"$parts\" -- \"$cur\"))\n"
           "    fi\n"
           "}\n"
           "complete -o default -F _orrery orrery\n");
}

static void print_zsh(void)
{
    puts("#compdef orrery\n"
         "# zsh completion of orrery, made by `orrery completion zsh`\n"
         "_orrery() {\n"
         "    local -a verbs keys\n"
         "    verbs=(");
    for (int i = 0; i < N_VERB; i++) printf("        \"%s:%s\"\n", verbs[i].name, verbs[i].help);
    puts("    )\n"
         "    local at=2\n"
         "    local -a parts\n"
         "    [[ $words[2] == help ]] && at=3\n"
         "    case $words[at] in\n"
         "    completion) parts=(bash zsh) ;;");
    for (int i = 0; i < N_VERB; i++)
        if (verbs[i].parts) printf("    %s) parts=(%s) ;;\n", verbs[i].name, verbs[i].parts);
    puts("    esac\n"
         "    local part=${parts[(r)$words[at+1]]}\n"
         "    if (( CURRENT <= at )); then\n"
         "        _describe verb verbs\n"
         "    elif [[ $words[CURRENT] == -* ]]; then\n"
         "        keys=(${(f)\"$($words[1] $words[at] $part --help 2>/dev/null | " KEYS ")\"})\n"
         "        compadd -S '' -- $keys\n"
         "    elif (( CURRENT == at + 1 && $#parts )); then\n"
         "        compadd -- $parts\n"
         "    else\n"
         "        _files\n"
         "    fi\n"
         "}\n"
         "if [[ $funcstack[1] == _orrery ]]; then _orrery \"$@\"; else compdef _orrery orrery; fi");
}

static int cmd_completion(int argc, char **argv)
{
    struct err e = { 0 };
    const char *shell = argc == 2 ? argv[1] : "";
    bool help = strcmp(shell, "--help") == 0 || strcmp(shell, "-h") == 0;
    if (strcmp(shell, "bash") == 0)
        print_bash();
    else if (strcmp(shell, "zsh") == 0)
        print_zsh();
    else if (help)
        puts("orrery completion bash|zsh: a completion script on standard output\n\n"
             "Examples\n"
             "  eval \"$(orrery completion bash)\"                 in ~/.bashrc\n"
             "  orrery completion zsh > ~/.zfunc/_orrery         a directory in $fpath");
    else
        err_set(&e, ST_USAGE, "completion takes one word, bash or zsh");
    return e.status == ST_OK ? 0 : complain(&e);
}

/* Text for troff: minus signs are minus signs, a line may not open a request. */
static void roff(const char *text)
{
    for (const char *p = text; *p; p++) {
        if ((p == text || p[-1] == '\n') && (*p == '.' || *p == '\'')) fputs("\\&", stdout);
        if (*p == '-' || *p == '\\')
            printf(*p == '-' ? "\\-" : "\\e");
        else
            putchar(*p);
    }
}

/* What a verb says to --help is what the manual says of it: its standard output goes to a file. */
static int man_of(const struct verb *v, const char *part)
{
    char line[512];
    FILE *f = tmpfile();
    int own = fflush(stdout) == 0 ? dup(STDOUT_FILENO) : -1, rc = 5;
    if (f && own >= 0 && dup2(fileno(f), STDOUT_FILENO) >= 0) {
        rc = help_of(v, part);
        if (fflush(stdout) != 0) rc = 5;
        if (dup2(own, STDOUT_FILENO) < 0) rc = 5;
        rewind(f);
        printf(".SS orrery %s%s%s\n.nf\n", v->name, part ? " " : "", part ? part : "");
        while (fgets(line, sizeof line, f)) roff(line);
        puts(".fi");
    }
    if (own >= 0) close(own);
    if (f) fclose(f);
    return rc;
}

static int man_options(void)
{
    int rc = 0;
    for (int i = 0; i < N_VERB && rc == 0; i++) {
        const struct verb *v = &verbs[i];
        char word[32];
        if (v->run == cmd_help || v->run == cmd_completion || v->run == cmd_man ||
            v->run == cmd_version)
            continue;
        if (!v->parts || v->run != cmd_engine_run) { /* trace has one help for all its parts */
            rc = man_of(v, NULL);
            continue;
        }
        for (const char *p = v->parts; *p && rc == 0; p += strcspn(p, " "), p += *p == ' ') {
            snprintf(word, sizeof word, "%.*s", (int)strcspn(p, " "), p);
            rc = man_of(v, word);
        }
    }
    if (rc) fprintf(stderr, "orrery: cannot write a temporary file for the manual page\n");
    return rc;
}

static int cmd_man(int argc, char **argv)
{
    char where[2048];
    (void)argv;
    if (argc > 1) {
        puts(
            "orrery man: the manual page on standard output; read it with `orrery man | man -l -`");
        return 0;
    }
    printf(".TH ORRERY 1 \"\" \"orrery %s\"\n.SH NAME\norrery \\- ", prov_version());
    puts("a calibrated simulator of LLM serving clusters\n.SH SYNOPSIS\n"
         ".B orrery\n.I VERB\n.RI [ FILE ...]\n.RI [ \\-\\-key=value ...]\n.SH DESCRIPTION");
    roff(about);
    puts("Results go to standard output, messages to standard error.\n.SH VERBS");
    for (int i = 0; i < N_VERB; i++) {
        printf(".TP\n.B %s\n", verbs[i].name);
        roff(verbs[i].help);
        puts(".");
    }
    puts(".SH OPTIONS\nWhat\n.BI \"orrery help \" VERB\nprints.");
    int rc = man_options();
    puts(".SH EXIT STATUS\n.nf");
    roff(exits);
    puts(".fi\n.SH FILES\n.nf");
    snprintf(where, sizeof where, files, paths_installed());
    roff(where);
    puts(".fi\n.SH ENVIRONMENT\n"
         ".TP\n.B ORRERY_HOME\nwhere scenarios and figure scripts are looked for first\n"
         ".TP\n.B ORRERY_DATA\nrecorded traces and measurements that tests and examples use");
    return rc;
}

/* ---- the process */

/* A closed standard stream would be reopened by the next file, and messages end up in results. The
 * wrong direction makes its use fail, as it should. */
static void hold_streams(void)
{
    for (int fd = 0; fd < 3; fd++)
        if (fcntl(fd, F_GETFD) < 0 && errno == EBADF &&
            open("/dev/null", fd ? O_RDONLY : O_WRONLY) != fd)
            _exit(5);
}

/* Whether all of standard output went out; a reader that left early (`| head`) had what it wanted.
 */
static int finish(int rc)
{
    errno = 0;
    if (fflush(stdout) == 0 && !ferror(stdout)) return rc;
    const char *why = errno ? strerror(errno) : "an earlier write failed";
    struct pollfd out = { .fd = STDOUT_FILENO };
    if (errno == EPIPE || (poll(&out, 1, 0) == 1 && out.revents & POLLERR)) return rc;
    if (rc == 0 || rc == 1 || rc == 3 || rc == 4) /* else the verb has said what is wrong */
        fprintf(stderr, "orrery: cannot write to standard output: %s\n", why);
    return rc == 130 ? rc : 5;
}

/* Weights are mapped: what another program cuts off them while they are read is no read that fails. */
static void on_bus_error(int sig)
{
    static const char text[] =
        "orrery: a mapped file became shorter while it was read, or memory failed\n";
    (void)sig;
    if (write(STDERR_FILENO, text, sizeof text - 1) < 0) _exit(5);
    _exit(5);
}

int main(int argc, char **argv)
{
    static const struct {
        const char *flag;
        int (*run)(int, char **);
    } flags[] = { { "--help", cmd_help },
                  { "-h", cmd_help },
                  { "--version", cmd_version },
                  { "-V", cmd_version } };
    struct err e = { 0 };
    hold_streams();
    signal(SIGPIPE, SIG_IGN); /* a gone reader is a failed write: files are still finished */
    signal(SIGBUS, on_bus_error);
    stop_install();
    gsl_set_error_handler_off();
    if (argc < 2) {
        print_help(stderr);
        return 2;
    }
    for (size_t i = 0; i < sizeof flags / sizeof *flags; i++)
        if (strcmp(argv[1], flags[i].flag) == 0) return finish(flags[i].run(argc - 1, argv + 1));
    const struct verb *v = verb_find(argv[1], &e);
    return finish(v ? v->run(argc - 1, argv + 1) : complain(&e));
}
