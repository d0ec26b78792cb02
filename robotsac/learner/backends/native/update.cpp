// One SAC update (Haarnoja et al. 2018b, algorithm 1) on a CPU, as one call: what learner/sac.py says, or
// learner/cross_q.py, in its order.
//
// It is made of a few parallel parts, each shared out by rows of the batch or by rows of a weight matrix. Of SAC:
//
//   rows     actor at s', target critics, soft Bellman target; critics at (s, a), and back to each layer
//   weights  the critics' gradients, Adam and target, some rows at a time
//   rows     actor at s, critics at its action, back through both; smoothness terms
//   weights  the actor's gradients and Adam
//
// Critics that are normalised over the batch have a part for each layer, forward and back.
//
// Numbers live in torch's own tensors. What is kept here are buffers, and the weights in the order in which products
// read them. ``robotsac_updates`` takes pointers anew with each call; when somebody else has changed a weight,
// ``repack`` says so.

#include <exception>

#include "actor_step.h"
#include "normed_critics.h"
#include "sac_critics.h"

namespace {

class Update {
 public:
  virtual ~Update() = default;
  virtual void run(Inputs inputs, int count, Losses* losses) = 0;
};

template <class Critics>
class UpdateOf final : public Update {
 public:
  explicit UpdateOf(const Spec& spec) : work_(spec), critics_(work_), actor_(work_), pool_(spec.threads) {}

  void run(Inputs inputs, int count, Losses* losses) override {
    work_.in = &inputs;
    critics_.attach(), actor_.attach();
    if (inputs.repack) critics_.pack(), actor_.pack();
    for (int i = 0; i < count; ++i) {
      if (i > 0) inputs.advance(work_.spec);
      one(inputs, losses[i]);
    }
    work_.in = nullptr;
  }

 private:
  void one(const Inputs& inputs, Losses& losses) {
    work_.alpha = std::exp(*inputs.log_alpha->value);
    critics_.learn(pool_, [&](int first, int end) { actor_.act_next(first, end); }, losses);
    if (*inputs.update_actor) actor_.learn(pool_, critics_.all, losses);
  }

  Work work_;
  Critics critics_;
  ActorStep actor_;
  Pool pool_;
};

}  // namespace

extern "C" {

// null: there is not the memory, or there are not the threads.
void* robotsac_create(const Spec* spec) {
  try {
    if (spec->batch_norm) return static_cast<Update*>(new UpdateOf<NormedCritics>(*spec));
    return static_cast<Update*>(new UpdateOf<SacCritics>(*spec));
  } catch (const std::exception&) {
    return nullptr;
  }
}

// ``count`` updates in turn. All room that grows with the batch or the critics has been made before; each thread makes
// its own for one layer's gradient, and for one layer's operands in bfloat16. Where there is none for these, it ends
// the process, as an update that was begun cannot be taken back.
void robotsac_updates(void* update, const Inputs* inputs, int32_t count, Losses* losses) noexcept {
  const FlushDenormals flush;
  static_cast<Update*>(update)->run(*inputs, count, losses);
}

void robotsac_destroy(void* update) { delete static_cast<Update*>(update); }

// Bytes of Spec, Adams, Inputs, Parameter: whoever fills them checks that it means the same.
int32_t robotsac_size(int32_t which) {
  const size_t sizes[] = {sizeof(Spec), sizeof(Adams), sizeof(Inputs), sizeof(Parameter)};
  return which >= 0 && which < 4 ? static_cast<int32_t>(sizes[which]) : 0;
}
}
