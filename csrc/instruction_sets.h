// One binary for every CPU: a function marked EMIX_INSTRUCTION_SETS is compiled once for each level and chosen when the
// library is loaded. What it calls must be inlined into it (EMIX_HD), or it runs at the baseline. With EMIX_ONE_LEVEL
// there is one level, that of the compiler's flags (make sanitize).
#pragma once

#if defined(__x86_64__) && !defined(EMIX_ONE_LEVEL) && defined(__GNUC__) && !defined(__clang__)
#define EMIX_INSTRUCTION_SETS __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define EMIX_INSTRUCTION_SETS
#endif

// float is what almost every call brings and gets all levels; the other types are compiled once, for the baseline:
// every clone costs seconds of every build.
#define EMIX_BASELINE

// Body::run<width in bytes of a vector register>(arguments...), compiled for each level, for loops that must know how
// many registers there are. The level is found when it is called.
#if defined(__x86_64__) && !defined(EMIX_ONE_LEVEL) && defined(__GNUC__) && !defined(__clang__)
template <class Body, class... Arguments>
__attribute__((target("arch=x86-64-v4"))) void run_v4(const Arguments&... arguments) {
  Body::template run<64>(arguments...);
}

template <class Body, class... Arguments>
__attribute__((target("arch=x86-64-v3"))) void run_v3(const Arguments&... arguments) {
  Body::template run<32>(arguments...);
}

template <class Body, class... Arguments>
void at_best_level(const Arguments&... arguments) {
  if (__builtin_cpu_supports("x86-64-v4")) return run_v4<Body>(arguments...);
  if (__builtin_cpu_supports("x86-64-v3")) return run_v3<Body>(arguments...);
  Body::template run<16>(arguments...);
}
#else
template <class Body, class... Arguments>
void at_best_level(const Arguments&... arguments) {
#if defined(__AVX512F__)
  Body::template run<64>(arguments...);
#elif defined(__AVX2__)
  Body::template run<32>(arguments...);
#else
  Body::template run<16>(arguments...);
#endif
}
#endif
