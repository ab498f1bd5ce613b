// The test program's cases by name: test_emulator.py runs them and knows what each must print.
#pragma once

#include <map>
#include <string>

#include "emulator.h"

using Cases = std::map<std::string, void (*)()>;
#define CASE(name) {#name, name}

extern const Cases kBrokenCases;  // each ends in an exception
extern const Cases kFatalCases;   // each ends the process
extern const Cases kRacyCases;    // each ends in a data race
extern const Cases kRaceFreeCases;
