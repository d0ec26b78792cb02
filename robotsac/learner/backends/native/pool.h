// Threads that share the work of one update: a few short parallel parts, a hundred microseconds apart.
#pragma once

#include <atomic>
#include <functional>
#include <thread>
#include <vector>

#if defined(__SSE__)
#include <immintrin.h>
#endif

inline void relax() {
#if defined(__SSE__)
  _mm_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// While it lives, this thread takes denormal numbers for 0: moments of units that have died decay into them, and they
// cost a hundred times a normal one. All threads do: else it would show who did what.
class FlushDenormals {
 public:
#if defined(__SSE__)
  FlushDenormals() : before_(_mm_getcsr()) { _mm_setcsr(before_ | 0x8040); }
  ~FlushDenormals() { _mm_setcsr(before_); }

 private:
  unsigned before_;
#elif defined(__aarch64__)
  FlushDenormals() {
    asm volatile("mrs %0, fpcr" : "=r"(before_));
    asm volatile("msr fpcr, %0" : : "r"(before_ | (1ull << 24)));
  }
  ~FlushDenormals() { asm volatile("msr fpcr, %0" : : "r"(before_)); }

 private:
  unsigned long long before_ = 0;
#endif
};

class Pool {
 public:
  // Throws std::system_error: the system gives no more threads.
  explicit Pool(int threads) {
    try {
      for (int i = 1; i < threads; ++i) workers_.emplace_back([this] { serve(); });
    } catch (...) {
      end();
      throw;
    }
  }

  ~Pool() { end(); }

  // work(unit) for each unit below ``units``, shared among the threads; returns when all is done.
  template <class Work>
  void each(int units, const Work& work) {
    if (workers_.empty() || units < 2) {
      for (int unit = 0; unit < units; ++unit) work(unit);
      return;
    }
    job_ = [&work](int unit) { work(unit); };
    units_ = units;
    next_.store(0, std::memory_order_relaxed);
    busy_.store(static_cast<int>(workers_.size()), std::memory_order_relaxed);
    announce();
    take();
    for (int spin = 0; busy_.load(std::memory_order_acquire) != 0; ++spin)
      spin < SPINS ? relax() : std::this_thread::yield();
  }

 private:
  static constexpr int SPINS = 4000;  // some tens of microseconds; then the core is somebody else's

  void end() {
    ending_ = true;
    announce();
    for (std::thread& worker : workers_) worker.join();
  }

  void announce() {
    round_.fetch_add(1, std::memory_order_release);
    round_.notify_all();
  }

  void take() {
    for (int unit; (unit = next_.fetch_add(1, std::memory_order_relaxed)) < units_;) job_(unit);
  }

  void serve() {
    const FlushDenormals flush;
    for (unsigned seen = 0;;) {
      for (int spin = 0; spin < SPINS && round_.load(std::memory_order_acquire) == seen; ++spin) relax();
      round_.wait(seen, std::memory_order_acquire);
      ++seen;
      if (ending_) return;
      take();
      busy_.fetch_sub(1, std::memory_order_release);
    }
  }

  std::vector<std::thread> workers_;
  std::function<void(int)> job_;
  int units_ = 0;
  std::atomic<int> next_{0}, busy_{0};
  std::atomic<unsigned> round_{0};
  std::atomic<bool> ending_{false};
};
