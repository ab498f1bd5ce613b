// Every op: the table of contents of the compiled side. A word's ops.h has the schemas and what leads from there to the
// kernels; <word>/cpu.cpp and <word>/cuda.cu register them.
#include "battle/ops.h"
#include "critic/ops.h"
#include "diversity/ops.h"
#include "ensemble/ops.h"
#include "gaussian/ops.h"
#include "hypernetwork/ops.h"
#include "marginal/ops.h"
#include "mixing/ops.h"
#include "policy/ops.h"
#include "recurrent/ops.h"
#include "returns/ops.h"
#include "rmsprop/ops.h"
#include "sampling/ops.h"
#include "targets/ops.h"

STABLE_TORCH_LIBRARY(emix, m) {
  emix::returns::define_ops(m);
  emix::targets::define_ops(m);
  emix::ensemble::define_ops(m);
  emix::diversity::define_ops(m);
  emix::mixing::define_ops(m);
  emix::sampling::define_ops(m);
  emix::policy::define_ops(m);
  emix::gaussian::define_ops(m);
  emix::recurrent::define_ops(m);
  emix::critic::define_ops(m);
  emix::hypernetwork::define_ops(m);
  emix::marginal::define_ops(m);
  emix::rmsprop::define_ops(m);
  emix::battle::define_ops(m);
}
