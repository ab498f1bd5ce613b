// A unit back by a block, a chunk of joint actions after the other. With x of the chunk's rows in shared memory all is
// products of 16 x 8 tiles:
//
//   z again, of which a bit an element stays: whether y > 0                                      rows x H2
//   M += x' G/K (bits),   m += sum over rows of G/K (bits)                                       H x H2
//   dx = G/K (bits) (W_hidden diag(w_head))', 0 where x is not > 0, in the place of x            rows x H
//   dW_action,j' += (sum_i dx_i - dx_j)' (one-hot a_j, or the numbers)                           H x A
//
// from which dW_hidden = M diag(w_head), db_hidden = m w_head, and because y = bits (W_hidden' x + b_hidden),
// dw_head = sum over H of W_hidden M + b_hidden m. Each block adds to sums of its own, cuda_sums.h adds up the blocks'
// in order.
#pragma once
#include "marginal/cuda_block_sums.h"

namespace emix::marginal {

template <class Units>
__global__ void __launch_bounds__(kMostThreads<typename Units::Number>)
    marginal_backward(const __grid_constant__ Problem p, const __grid_constant__ Layout l,
                      const __grid_constant__ BackwardMemory<typename Units::Number> memory,
                      const __grid_constant__ Fragments<Units> w, const __grid_constant__ Gradients g,
                      const __grid_constant__ SumsLayout places, typename Units::Number* sums) {
  typename Units::Number* own = sums + blockIdx.x * places.elements;
  BackwardBlock<Units> block(p, l, memory, w, g);
  const BlockSums<Units> own_sums{block, p, l, places, own};
  if (blockIdx.x >= l.units)  // there are no states
    for (int64_t e = threadIdx.x; e < places.elements; e += threads()) own[e] = 0;
  for (int64_t unit = blockIdx.x; unit < l.units; unit += gridDim.x) {
    for (int part = 0; part < l.chunks; ++part) {
      const bool first_chunk = unit == blockIdx.x && part == 0;
      block.load(unit, part);
      if (part == 0 && warp_index() == 0) own_sums.add_values(first_chunk);
      block_barrier();
      block.chunk.find_x();
      block_barrier();
      block.find_bits();
      block_barrier();
      own_sums.add_products(first_chunk);
      block_barrier();
      block.find_x_gradient();
      block_barrier();
      block.add_first_gradient(part == 0);
      block_barrier();
      block.find_share_gradient();
      block_barrier();
      own_sums.add_action_gradient(first_chunk);
      block_barrier();
    }
  }
}

}  // namespace emix::marginal
