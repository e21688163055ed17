//! Whether a device can compute flash attention, which quantised keys and values need. llama.cpp finds that out when it has
//! made a context, and gives the whole model up where the answer is no.

#![expect(unsafe_code, reason = "calls into ggml")]

use llama_cpp_sys_2 as sys;

/// Attention of one layer: how many heads have queries, how many have keys and values, and of how many elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heads {
    pub queries: u64,
    pub keys: u64,
    pub key_length: u64,
    pub value_length: u64,
}

/// Tensors of the operation: queries, keys, values, mask, result.
const TENSORS: usize = 5;
/// Cells of the KV cache that it looks at: whole blocks of any kernel.
const CELLS: i64 = 256;
/// Heads of more elements, or more of them, are in no model.
const MOST: u64 = 1 << 16;

/// Whether the device of this number in ggml's registry computes flash attention with keys and values of these types (ggml's
/// numbers). Heads must be made of whole blocks of them.
pub(crate) fn supported(device: usize, heads: Heads, [keys, values]: [u32; 2]) -> bool {
    let Heads {
        queries,
        keys: key_heads,
        key_length,
        value_length,
    } = heads;
    let sizes = [queries, key_heads, key_length, value_length]
        .map(|size| i64::try_from(size).ok().filter(|_| (1..=MOST).contains(&size)));
    let [Some(queries), Some(key_heads), Some(key_length), Some(value_length)] = sizes else {
        return false;
    };
    if queries % key_heads != 0 {
        return false;
    }
    // SAFETY: a number below that of the devices.
    let device = unsafe {
        if device >= sys::ggml_backend_dev_count() {
            return false;
        }
        sys::ggml_backend_dev_get(device)
    };
    // SAFETY: the context has room for the descriptions of all tensors, which have no data. Their sizes are small and
    // positive, those of quantised ones whole blocks, as the caller promises, and each head of keys has as many of queries.
    unsafe {
        let context = sys::ggml_init(sys::ggml_init_params {
            mem_size: TENSORS * sys::ggml_tensor_overhead(),
            mem_buffer: std::ptr::null_mut(),
            no_alloc: true,
        });
        if context.is_null() {
            return false;
        }
        let (f32, f16) = (sys::GGML_TYPE_F32, sys::GGML_TYPE_F16);
        let tensor = |kind, width, rows, heads| sys::ggml_new_tensor_4d(context, kind, width, rows, heads, 1);
        let operation = sys::ggml_flash_attn_ext(
            context,
            tensor(f32, key_length, 1, queries),
            tensor(keys, key_length, CELLS, key_heads),
            tensor(values, value_length, CELLS, key_heads),
            tensor(f16, CELLS, 1, 1),
            1.0,
            0.0,
            0.0,
        );
        let supported = sys::ggml_backend_dev_supports_op(device, operation);
        sys::ggml_free(context);
        supported
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_processor_computes_all_types_and_nothing_odd() {
        #[cfg(feature = "dynamic-backends")]
        crate::llama::modules::load();
        // SAFETY: no arguments.
        let devices = unsafe { sys::ggml_backend_dev_count() };
        let cpu = (0..devices).find(|device| {
            // SAFETY: a number below that of the devices.
            let kind = unsafe { sys::ggml_backend_dev_type(sys::ggml_backend_dev_get(*device)) };
            kind == sys::GGML_BACKEND_DEVICE_TYPE_CPU
        });
        let cpu = cpu.expect("the processor");
        let heads = Heads {
            queries: 16,
            keys: 2,
            key_length: 256,
            value_length: 256,
        };
        let (f16, q4_0, q8_0) = (sys::GGML_TYPE_F16, sys::GGML_TYPE_Q4_0, sys::GGML_TYPE_Q8_0);
        for types in [[f16, f16], [q8_0, q8_0], [q8_0, q4_0], [f16, q8_0]] {
            assert!(supported(cpu, heads, types), "{types:?}");
        }
        let odd = Heads { keys: 3, ..heads };
        assert!(!supported(cpu, odd, [f16, f16]));
        assert!(!supported(cpu, Heads { queries: 0, ..heads }, [f16, f16]));
        assert!(!supported(devices, heads, [f16, f16]));
    }
}
