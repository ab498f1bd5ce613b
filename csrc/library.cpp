// Every op's schema: the table of contents of the compiled side. <word>/cpu.cpp and <word>/cuda.cu register the
// kernels.
#include "torch.h"

STABLE_TORCH_LIBRARY(emix, m) {
  // returns: X_t = delta_t + gamma lam c_{t+1} X_{t+1}; gives q + X, or X itself (advantage). horizon 0: no limit.
  // clip: c = min(1, trace).
  m.def(
      "trace_returns(Tensor reward, Tensor terminated, Tensor q, Tensor v, float gamma, float lam, Tensor? trace=None, "
      "Tensor? truncated=None, Tensor? valid=None, int horizon=0, bool clip=False, bool advantage=False) -> Tensor");
  // Gradients with respect to reward [B, T, ...] and q, v, trace [B, T+1, ...], all in the broadcast shape.
  m.def(
      "trace_returns_backward(Tensor grad, Tensor reward, Tensor terminated, Tensor q, Tensor v, float gamma, float "
      "lam, "
      "Tensor? trace=None, Tensor? truncated=None, Tensor? valid=None, int horizon=0, bool clip=False, bool "
      "advantage=False) -> (Tensor, Tensor, Tensor, Tensor)");
}
