// Compiled without -fsanitize=thread, as what it does itself is no access of a kernel.
#include "races.h"

#include <algorithm>
#include <cstdlib>
#include <string>

#include "scheduler.h"

namespace emulator {

namespace {

thread_local Races* watching = nullptr;  // while a kernel's thread runs

// To look costs several times what a kernel does.
const bool looks = [] {
  const char* variable = std::getenv("EMIX_EMULATOR_RACES");
  return !variable || std::string(variable) != "off";
}();

}  // namespace

void Races::start_launch() {
  ++time_;
  launch_ = first_stamp();
  blocks_.clear();
  if (pages_.size() <= kKeptPages) return;
  pages_.clear();
  std::fill(cache_.begin(), cache_.end(), CachedPage{});
}

void Races::start_block(uint64_t rank, const void* shared, size_t shared_bytes) {
  ++time_;
  block_ = barrier_ = first_stamp();
  blocks_.push_back({block_, rank});
  shared_ = reinterpret_cast<uintptr_t>(shared);
  shared_bytes_ = shared_bytes;
}

void Races::block_barrier() {
  ++time_;
  barrier_ = first_stamp();
}

void Races::warp_barrier(unsigned first_rank, unsigned mask, unsigned existing) {
  ++time_;
  mask &= existing;
  const unsigned warp = first_rank / kWarp;
  if (mask == existing) {
    warps_[warp] = first_stamp();
    return;
  }
  Stamp* pairs = &pairs_[warp * kWarp * kWarp];
  Stamp behind[kWarp] = {};  // of each lane's accesses, those behind this barrier
  for (unsigned lane = 0; lane < kWarp; ++lane) {
    if (!(mask >> lane & 1)) continue;
    for (unsigned other = 0; other < kWarp; ++other)
      behind[other] = std::max(behind[other], mask >> other & 1 ? first_stamp() : pairs[lane * kWarp + other]);
  }
  for (unsigned lane = 0; lane < kWarp; ++lane) {
    if (mask >> lane & 1) std::copy(behind, behind + kWarp, pairs + lane * kWarp);
  }
}

void Races::watch(unsigned rank, const void* stack, size_t stack_bytes) {
  now_ = first_stamp() | rank;
  stack_ = reinterpret_cast<uintptr_t>(stack);
  stack_bytes_ = stack_bytes;
  watching = looks ? this : nullptr;
}

void Races::stop() { watching = nullptr; }

// Inlined where the size is known: most accesses are of one word.
template <bool kWrites>
[[gnu::always_inline]] inline bool Races::access(uintptr_t address, size_t bytes) {
  if (address - stack_ < stack_bytes_) return false;
  const bool in_shared = address - shared_ < shared_bytes_;
  oldest_ = in_shared ? block_ : launch_;
  const uintptr_t end = address + bytes;
  for (uintptr_t at = address, next; at < end; at = next) {
    const size_t offset = at % kPageBytes, word = offset / kWordBytes;
    next = std::min(end, at - at % kWordBytes + kWordBytes);
    Page& its = page(at / kPageBytes);
    const bool whole = next - at == kWordBytes && !its.split[word];
    if (whole ? access_cell<kWrites>(its.words[word]) : access_bytes<kWrites>(its, offset, next - at)) {
      race_.address = in_shared ? address - shared_ : address;
      race_.bytes = bytes;
      race_.in_shared = in_shared;
      race_.writes = kWrites;
      return true;
    }
  }
  return false;
}

inline Races::Page& Races::page(uintptr_t number) {
  const CachedPage& cached = cache_[number % kCachedPages];
  return cached.number == number ? *cached.page : page_not_cached(number);
}

Races::Page& Races::page_not_cached(uintptr_t number) {
  std::unique_ptr<Page>& page = pages_[number];
  if (!page) page = std::make_unique<Page>();
  cache_[number % kCachedPages] = {number, page.get()};
  return *page;
}

// Of one word.
template <bool kWrites>
bool Races::access_bytes(Page& page, size_t first, size_t count) {
  const size_t word = first / kWordBytes;
  if (!page.bytes) page.bytes = std::make_unique<Cell[]>(kPageBytes);
  Cell* bytes = &page.bytes[word * kWordBytes];
  if (!page.split[word]) std::fill_n(bytes, kWordBytes, page.words[word]);
  page.split[word] = true;
  for (size_t i = first; i < first + count; ++i) {
    if (access_cell<kWrites>(page.bytes[i])) return true;
  }
  page.split[word] = !std::all_of(bytes, bytes + kWordBytes, [&](const Cell& cell) {
    return cell.write == bytes->write && cell.read == bytes->read && cell.other_read == bytes->other_read;
  });
  if (!page.split[word]) page.words[word] = *bytes;
  return false;
}

// Where the newest stamp is the thread's own of just now, others would have raced with it.
template <bool kWrites>
inline bool Races::access_cell(Cell& cell) {
  if (cell.write == now_ || (!kWrites && (cell.read == now_ || cell.other_read == now_))) return false;
  if (!ordered(cell.write)) return found(cell.write, true);
  if (kWrites) {
    if (!ordered(cell.read)) return found(cell.read, false);
    if (!ordered(cell.other_read)) return found(cell.other_read, false);
    cell.write = now_;
  } else if (ordered(cell.read)) {
    cell.read = now_;
  } else if (ordered(cell.other_read)) {
    cell.other_read = now_;
  }
  return false;
}

inline bool Races::ordered(Stamp stamp) const {
  if (stamp < oldest_) return true;
  if (stamp < barrier_) return stamp >= block_;
  const unsigned rank = rank_of(now_), other = rank_of(stamp), warp = rank / kWarp;
  if (rank == other) return true;
  return warp == other / kWarp && (stamp < warps_[warp] || stamp < pairs_[rank * kWarp + other % kWarp]);
}

bool Races::found(Stamp stamp, bool other_wrote) {
  const bool own_warp = rank_of(stamp) / kWarp == rank_of(now_) / kWarp;
  race_.missing = stamp < block_ ? Race::kLaunch : own_warp ? Race::kSyncwarp : Race::kSyncthreads;
  race_.other_wrote = other_wrote;
  race_.other_rank = rank_of(stamp);
  const auto after = std::upper_bound(blocks_.begin(), blocks_.end(), stamp,
                                      [](Stamp stamp, const Block& block) { return stamp < block.start; });
  race_.other_block = std::prev(after)->rank;
  return true;
}

namespace {

template <bool kWrites>
[[gnu::always_inline]] inline void access(const void* address, size_t bytes) {
  Races* races = watching;
  if (!races || !races->access<kWrites>(reinterpret_cast<uintptr_t>(address), bytes)) return;
  Races::stop();
  scheduler->stop(races->race());
}

}  // namespace
}  // namespace emulator

// What -fsanitize=thread makes g++ call; the atomic operation, in torch's shared pointers around the kernels.
extern "C" {

#define ACCESSES(bytes)                                                                     \
  void __tsan_read##bytes(const void* address) { emulator::access<false>(address, bytes); } \
  void __tsan_write##bytes(const void* address) { emulator::access<true>(address, bytes); }
ACCESSES(1)
ACCESSES(2)
ACCESSES(4)
ACCESSES(8)
ACCESSES(16)
#undef ACCESSES
void __tsan_read_range(const void* address, size_t bytes) { emulator::access<false>(address, bytes); }
void __tsan_write_range(const void* address, size_t bytes) { emulator::access<true>(address, bytes); }

void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
void __tsan_vptr_update(void**, void*) {}
int __tsan_atomic32_fetch_add(volatile int* address, int value, int) {
  return __atomic_fetch_add(address, value, __ATOMIC_SEQ_CST);
}
}
