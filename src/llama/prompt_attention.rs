//! Attention of prompts on CPUs: a device of ggml's (`prompt_attention.cpp`), which llama.cpp takes into every context that is
//! made after it was registered.

#![expect(unsafe_code, reason = "calls into prompt_attention.cpp")]

use std::sync::Once;

// SAFETY: the declaration is that of prompt_attention.cpp.
unsafe extern "C" {
    fn hearth_register_prompt_attention();
}

/// Registers the device, once.
pub(crate) fn register() {
    static ONCE: Once = Once::new();
    // SAFETY: called once, and what it registers lives for ever.
    ONCE.call_once(|| unsafe { hearth_register_prompt_attention() });
}

#[cfg(test)]
mod tests {
    use std::ffi::c_void;

    use fastrand::Rng;
    use llama_cpp_sys_2 as sys;
    use proptest::prelude::*;

    use super::*;

    /// An operation: heads of keys and values, heads of queries for each, lengths of keys and values, cells, tokens, streams.
    #[derive(Debug, Clone, Copy)]
    struct Shape {
        heads: usize,
        group: usize,
        key_length: usize,
        value_length: usize,
        cells: usize,
        tokens: usize,
        streams: usize,
        kind: u32,
        masked: bool,
    }

    fn shapes() -> impl Strategy<Value = Shape> {
        let heads = (1..4_usize, 1..5_usize, 1..3_usize, 1..4_usize);
        let kinds = prop_oneof![
            Just(sys::GGML_TYPE_F16),
            Just(sys::GGML_TYPE_F32),
            Just(sys::GGML_TYPE_Q8_0)
        ];
        (heads, 1..400_usize, 64..150_usize, 1..3_usize, kinds, any::<bool>()).prop_map(
            |((heads, group, keys, values), cells, tokens, streams, kind, masked)| Shape {
                heads,
                group,
                key_length: 32 * keys,
                value_length: 32 * values,
                cells,
                tokens,
                streams,
                kind,
                masked,
            },
        )
    }

    /// Queries, keys and values as [stream][head][place][element], and what each token sees as [stream][token][cell].
    struct Data {
        queries: Vec<f32>,
        keys: Vec<f32>,
        values: Vec<f32>,
        seen: Vec<bool>,
    }

    impl Data {
        fn new(shape: Shape, seed: u64) -> Self {
            let mut rng = Rng::with_seed(seed);
            let places = shape.streams * shape.heads;
            // Eighths: exact in F16, and in Q8_0, where each block of 32 has one of 127 eighths.
            let mut eighths = |count: usize| -> Vec<f32> {
                let mut numbers: Vec<f32> = (0..count).map(|_| f32::from(rng.i8(-24..=24)) / 8.0).collect();
                numbers.iter_mut().step_by(32).for_each(|number| *number = 127.0 / 8.0);
                numbers
            };
            let queries = eighths(places * shape.group * shape.tokens * shape.key_length);
            let keys = eighths(places * shape.cells * shape.key_length);
            let values = eighths(places * shape.cells * shape.value_length);
            // Long stretches that nobody sees, and tokens that see nothing.
            let seen = (0..shape.streams * shape.tokens)
                .flat_map(|_| {
                    let end = rng.usize(0..=shape.cells);
                    let begin = if rng.bool() { 0 } else { rng.usize(0..=end) };
                    (0..shape.cells).map(move |cell| !shape.masked || (begin..end).contains(&cell))
                })
                .collect();
            Self {
                queries,
                keys,
                values,
                seen,
            }
        }

        /// The results as [stream][token][head of queries][element], by the textbook.
        fn expected(&self, shape: Shape, scale: f64) -> Vec<f32> {
            let mut results = Vec::new();
            for stream in 0..shape.streams {
                for token in 0..shape.tokens {
                    for head in 0..shape.heads * shape.group {
                        let query = (stream * shape.heads * shape.group + head) * shape.tokens + token;
                        let query = &self.queries[query * shape.key_length..][..shape.key_length];
                        let pair = stream * shape.heads + head / shape.group;
                        let seen = &self.seen[(stream * shape.tokens + token) * shape.cells..][..shape.cells];
                        let score = |cell: usize| {
                            let key = &self.keys[(pair * shape.cells + cell) * shape.key_length..][..shape.key_length];
                            let product: f64 = query.iter().zip(key).map(|(q, k)| f64::from(*q) * f64::from(*k)).sum();
                            product * scale
                        };
                        let cells: Vec<usize> = (0..shape.cells).filter(|cell| seen[*cell]).collect();
                        let scores: Vec<f64> = cells.iter().map(|cell| score(*cell)).collect();
                        let most = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                        let weights: Vec<f64> = scores.iter().map(|score| (score - most).exp()).collect();
                        let sum: f64 = weights.iter().sum();
                        for element in 0..shape.value_length {
                            let value = |cell: &usize| {
                                f64::from(self.values[(pair * shape.cells + cell) * shape.value_length + element])
                            };
                            let result: f64 = cells
                                .iter()
                                .zip(&weights)
                                .map(|(cell, weight)| value(cell) * weight)
                                .sum();
                            #[expect(clippy::cast_possible_truncation, reason = "compared with floats")]
                            results.push(if cells.is_empty() { 0.0 } else { (result / sum) as f32 });
                        }
                    }
                }
            }
            results
        }
    }

    /// What the device computes with so many threads; `None` if it does not take the operation.
    fn computed(shape: Shape, data: &Data, scale: f32, threads: i32) -> Option<Vec<f32>> {
        register();
        let size = |length: usize| i64::try_from(length).unwrap();
        let [heads, group, key_length, value_length, cells, tokens, streams] = [
            shape.heads,
            shape.group,
            shape.key_length,
            shape.value_length,
            shape.cells,
            shape.tokens,
            shape.streams,
        ]
        .map(size);
        // SAFETY: descriptions of tensors in a context with room for them, whose data are written with their own sizes, and
        // objects that live until they are freed at the end.
        unsafe {
            let context = sys::ggml_init(sys::ggml_init_params {
                mem_size: 16 * sys::ggml_tensor_overhead() + sys::ggml_graph_overhead(),
                mem_buffer: std::ptr::null_mut(),
                no_alloc: true,
            });
            let tensor =
                |kind, length, places, heads| sys::ggml_new_tensor_4d(context, kind, length, places, heads, streams);
            let queries = tensor(sys::GGML_TYPE_F32, key_length, tokens, heads * group);
            let keys = tensor(shape.kind, key_length, cells, heads);
            let values = tensor(shape.kind, value_length, cells, heads);
            let mask = tensor(sys::GGML_TYPE_F16, cells, tokens, 1);
            let result = sys::ggml_flash_attn_ext(context, queries, keys, values, mask, scale, 0.0, 0.0);
            let graph = sys::ggml_new_graph(context);
            sys::ggml_build_forward_expand(graph, result);
            let device = sys::ggml_backend_dev_by_name(c"Hearth_Prompts".as_ptr());
            let takes = sys::ggml_backend_dev_supports_op(device, result);
            let backend = sys::ggml_backend_dev_init(device, std::ptr::null());
            let buffer = sys::ggml_backend_alloc_ctx_tensors(context, backend);
            let write = |tensor, bytes: *const c_void| {
                sys::ggml_backend_tensor_set(tensor, bytes, 0, sys::ggml_nbytes(tensor));
            };
            let write_as = |tensor: *mut sys::ggml_tensor, numbers: &[f32]| {
                let mut bytes = vec![0_u8; sys::ggml_nbytes(tensor)];
                let rows = sys::ggml_nrows(tensor);
                let kind = (*tensor).type_;
                sys::ggml_quantize_chunk(
                    kind,
                    numbers.as_ptr(),
                    bytes.as_mut_ptr().cast(),
                    0,
                    rows,
                    (*tensor).ne[0],
                    std::ptr::null(),
                );
                write(tensor, bytes.as_ptr().cast());
            };
            write_as(queries, &data.queries);
            write_as(keys, &data.keys);
            write_as(values, &data.values);
            let seen = data.seen.iter().map(|seen| if *seen { 0.0 } else { f32::NEG_INFINITY });
            write_as(mask, &seen.collect::<Vec<f32>>());
            let registry = sys::ggml_backend_dev_backend_reg(device);
            let set_threads = sys::ggml_backend_reg_get_proc_address(registry, c"ggml_backend_set_n_threads".as_ptr());
            let set_threads: extern "C" fn(sys::ggml_backend_t, i32) = std::mem::transmute(set_threads);
            set_threads(backend, threads);
            let status = sys::ggml_backend_graph_compute(backend, graph);
            assert_eq!(status, sys::GGML_STATUS_SUCCESS);
            let mut found = vec![0_f32; sys::ggml_nbytes(result) / size_of::<f32>()];
            sys::ggml_backend_tensor_get(result, found.as_mut_ptr().cast(), 0, sys::ggml_nbytes(result));
            sys::ggml_backend_buffer_free(buffer);
            sys::ggml_backend_free(backend);
            sys::ggml_free(context);
            takes.then_some(found)
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

        #[test]
        fn attention_is_that_of_the_textbook(shape in shapes(), seed: u64) {
            let data = Data::new(shape, seed);
            let scale = 0.02;
            let found = computed(shape, &data, scale, 1).expect("an operation that the device takes");
            let expected = data.expected(shape, f64::from(scale));
            prop_assert_eq!(found.len(), expected.len());
            for (found, expected) in found.iter().zip(&expected) {
                prop_assert!((found - expected).abs() < 1e-4, "{} {}", found, expected);
            }
            // However it is divided.
            prop_assert_eq!(computed(shape, &data, scale, 3), Some(found));
        }
    }

    #[test]
    fn passes_of_few_tokens_are_left_to_ggml() {
        let shape = Shape {
            heads: 2,
            group: 2,
            key_length: 64,
            value_length: 64,
            cells: 64,
            tokens: 63,
            streams: 1,
            kind: sys::GGML_TYPE_F16,
            masked: false,
        };
        assert_eq!(computed(shape, &Data::new(shape, 1), 1.0, 1), None);
    }
}
