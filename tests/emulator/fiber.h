// Fibers: stacks that hand one CPU thread to each other, so that it can hold all the threads of a CUDA block.
#pragma once

#include <setjmp.h>
#include <sys/mman.h>
#include <ucontext.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <new>
#include <utility>

namespace emulator {

// Past _FORTIFY_SOURCE's longjmp, which takes a jump to another stack for an error.
extern "C" [[noreturn]] void unchecked_longjmp(jmp_buf, int) noexcept __asm__("_longjmp");

// From low to high addresses: a guard page, a red zone, a canary, then the part in use, which grows down. An overflow
// into the red zone is found by the canary and reported; one that reaches the guard page ends the process before it
// harms other memory.
class Stack {
 public:
  static constexpr size_t kGuardBytes = 64 << 10;  // a page: no Linux that CUDA runs on has larger ones
  static constexpr size_t kRedZoneBytes = 16 << 10, kUsableBytes = 128 << 10;

  Stack()
      : base_(static_cast<char*>(
            mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0))) {
    if (base_ == MAP_FAILED) throw std::bad_alloc();
    mprotect(base_, kGuardBytes, PROT_NONE);
    set_canary();
  }
  Stack(Stack&& other) noexcept : base_(std::exchange(other.base_, nullptr)) {}
  ~Stack() {
    if (base_) munmap(base_, kBytes);
  }

  char* usable() const { return base_ + kGuardBytes + kRedZoneBytes; }
  void set_canary() { std::fill_n(canary(), kCanaryWords, kCanary); }
  bool overflowed() const {
    return std::any_of(canary(), canary() + kCanaryWords, [](uint64_t word) { return word != kCanary; });
  }

 private:
  static constexpr size_t kBytes = kGuardBytes + kRedZoneBytes + kUsableBytes;
  static constexpr uint64_t kCanary = 0x7fc0ffee5afe57ac;
  static constexpr size_t kCanaryWords = 8;  // a cache line: looked at after every switch
  uint64_t* canary() const { return reinterpret_cast<uint64_t*>(usable()) - kCanaryWords; }

  char* base_;
};

// Runs `main`, which must not return. swapcontext() would make a system call at every switch; so makecontext() only
// starts a fiber, and _setjmp and _longjmp switch from then on.
class Fiber {
 public:
  explicit Fiber(void (*main)()) : main_(main) {}

  // Outside: lets the fiber run until it yields.
  [[gnu::noinline]] void resume() {
    if (_setjmp(outside_)) return;
    if (started_) unchecked_longjmp(inside_, 1);
    start();
  }

  // Inside: goes back to where the fiber was resumed.
  [[gnu::noinline]] void yield() {
    if (!_setjmp(inside_)) unchecked_longjmp(outside_, 1);
  }

  // Outside: forgets where the fiber stands, without running its destructors; the next resume() begins `main` anew.
  void abandon() {
    started_ = false;
    stack_.set_canary();
  }

  bool overflowed() const { return stack_.overflowed(); }
  const void* stack() const { return stack_.usable(); }

 private:
  [[gnu::noinline]] void start() {
    started_ = true;
    ucontext_t context;
    getcontext(&context);
    context.uc_stack.ss_sp = stack_.usable();
    context.uc_stack.ss_size = Stack::kUsableBytes;
    context.uc_link = nullptr;
    makecontext(&context, main_, 0);
    setcontext(&context);
    std::abort();  // setcontext() does not return
  }

  void (*main_)();
  bool started_ = false;
  Stack stack_;
  jmp_buf inside_;
  static inline thread_local jmp_buf outside_;
};

}  // namespace emulator
