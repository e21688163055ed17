use super::*;
use crate::gguf::Gguf;

fn tiny(arch: Arch, mix: &str) -> Synthetic {
    let shape = Shape::preset(arch, "tiny").unwrap();
    Synthetic {
        shape,
        mix: Mix::from_name(mix).unwrap(),
        skew: 0.0,
        seed: 1,
        header_only: false,
    }
}

const ARCHES: [Arch; 4] = [Arch::Qwen3next, Arch::Qwen3moe, Arch::GptOss, Arch::Llama];

#[test]
fn every_architecture_in_every_mix_is_a_sound_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    for arch in ARCHES {
        for name in mix_names() {
            let mut synthetic = tiny(arch, name);
            synthetic.header_only = true;
            let bytes = synthetic.write(&path, |_, _| ()).unwrap();
            assert_eq!(bytes, path.metadata().unwrap().len());
            let geometry = Gguf::open(&path).unwrap().geometry().unwrap();
            assert_eq!(geometry.architecture, arch.as_str());
            assert_eq!(geometry.layers, synthetic.shape.layers);
            assert_eq!(geometry.experts, synthetic.shape.experts);
        }
    }
}

#[test]
fn the_real_shapes_have_the_real_sizes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    // Parameters in billions, as published; Qwen3-Next without its MTP block.
    for (arch, preset, least, most) in [
        (Arch::Qwen3next, "80b-a3b", 79.0, 80.5),
        (Arch::Qwen3moe, "30b-a3b", 30.4, 30.7),
        (Arch::GptOss, "20b", 20.8, 21.0),
        (Arch::GptOss, "120b", 116.0, 117.5),
        (Arch::Llama, "mag-mell-12b", 12.2, 12.3),
    ] {
        let shape = Shape::preset(arch, preset).unwrap();
        let synthetic = Synthetic {
            shape,
            header_only: true,
            ..tiny(arch, "q4_k_m")
        };
        synthetic.write(&path, |_, _| ()).unwrap();
        let parameters = Gguf::open(&path).unwrap().parameters() as f64 / 1e9;
        assert!((least..most).contains(&parameters), "{preset}: {parameters}");
    }
}

#[test]
fn a_seed_makes_the_same_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    let make = |seed| {
        let synthetic = Synthetic {
            seed,
            ..tiny(Arch::Qwen3next, "q4_k_m")
        };
        let mut last = 0;
        let total = synthetic.write(&path, |written, _| last = written).unwrap();
        assert_eq!(last, total);
        std::fs::read(&path).unwrap()
    };
    assert!(make(1) == make(1));
    assert!(make(1) != make(2));
}

#[test]
fn shapes_that_cannot_be_are_refused() {
    let path = Path::new("never-written.gguf");
    for change in [
        |shape: &mut Shape| shape.layers = 0,
        |shape: &mut Shape| shape.layers = 10_000,
        |shape: &mut Shape| shape.experts = 0,
        |shape: &mut Shape| shape.experts = 5000,
        |shape: &mut Shape| shape.experts_per_token = 33,
        |shape: &mut Shape| shape.vocabulary = 10,
        |shape: &mut Shape| shape.context = 0,
    ] {
        let mut synthetic = tiny(Arch::Qwen3next, "f16");
        change(&mut synthetic.shape);
        let error = synthetic.write(path, |_, _| ()).unwrap_err();
        assert!(matches!(error, SyntheticError::Shape(_)), "{error}");
    }
    assert!(Mix::from_name("q9").unwrap_err().to_string().contains("q4_k_m"));
}
