// One binary for every CPU: a function marked EMIX_INSTRUCTION_SETS is compiled once for each level and chosen when the
// library is loaded. What it calls must be inlined into it (EMIX_HD), or it runs at the baseline.
#pragma once

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define EMIX_INSTRUCTION_SETS __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define EMIX_INSTRUCTION_SETS
#endif

// float is what almost every call brings and gets all levels; the other types are compiled once, for the baseline:
// every clone costs seconds of every build.
#define EMIX_BASELINE
