//! Operation counts and energy, against those of the original's `get_energy.py`.

use serde_json::Value;
use siskin::Error;
use siskin::ecoformer::energy::{self, Attention, Counts, Layer, MAX_SIZE, Model};

fn golden() -> Value {
    serde_json::from_str(include_str!("../golden/ecoformer_opcounts.json")).unwrap()
}

fn integer(value: &Value, name: &str) -> u128 {
    let number = value[name].as_f64().unwrap_or_else(|| panic!("{name} of {value}"));
    assert_eq!(number.fract(), 0.0);
    number as u128
}

fn size(value: &Value, name: &str) -> usize {
    integer(value, name) as usize
}

/// The original adds up in f64.
#[track_caller]
fn same_energy(counts: Counts, expected: &Value) {
    let (got, expected) = (counts.energy_pj(), expected.as_f64().unwrap());
    assert!((got / expected - 1.0).abs() < 4.0 * f64::EPSILON, "{got} for {expected}");
}

#[test]
fn a_layer_is_counted_as_by_the_original() {
    let golden = golden();
    let grid = golden["attention_grid"].as_array().unwrap();
    assert_eq!(grid.len(), 20);
    for case in grid {
        let (heads, anchors) = (size(case, "heads"), size(case, "m") as u32);
        let layer = Layer::new(size(case, "N"), heads, size(case, "dim") / heads).unwrap();
        let softmax = energy::softmax(&layer);
        let eco = energy::ecoformer(&layer, size(case, "nbits") as u32, anchors);
        for (counts, name) in [(softmax, "msa"), (eco, "eco")] {
            assert_eq!(counts.multiplications, integer(case, &format!("{name}_mul")), "{case}");
            assert_eq!(counts.additions, integer(case, &format!("{name}_add")), "{case}");
            same_energy(counts, &case[format!("{name}_pJ")]);
        }
    }
}

#[test]
fn a_model_is_counted_as_by_the_original() {
    let golden = golden();
    let models = golden["models"].as_array().unwrap();
    assert_eq!(models.len(), 10);
    for case in models {
        let name = case["model"].as_str().unwrap().replace("pvt_v2", "pvtv2").replace('_', "-");
        let model = Model::named(&name).unwrap();
        let attention = match case["attn"].as_str().unwrap() {
            "msa" => Attention::Softmax,
            _ => Attention::PUBLISHED,
        };
        assert_eq!(model.outside(attention), integer(case, "base_flops"), "{name}");
        let counts = model.counts(attention);
        assert_eq!(counts.multiplications, integer(case, "mul"), "{name}");
        assert_eq!(counts.additions, integer(case, "add"), "{name}");
        same_energy(counts, &case["energy_pJ"]);
        assert_eq!(counts.area_um2(), integer(case, "area_um2"), "{name}");
        let stages = case["stages"].as_array().unwrap();
        assert_eq!(stages.len(), 4);
        for (stage, case) in model.stages.iter().zip(stages) {
            let layer = stage.layer();
            assert_eq!((layer.tokens(), layer.heads()), (size(case, "N"), size(case, "heads")));
            assert_eq!(layer.head_dim() * layer.heads(), size(case, "dim"));
            assert_eq!(stage.depth as usize, size(case, "depth"));
        }
    }
}

/// Of Twins the original's vectors have nothing, but its run and its README have these digits.
#[test]
fn twins_is_counted_as_published() {
    let model = Model::named("twins-svt-s").unwrap();
    for (attention, mul, add, energy) in
        [(Attention::PUBLISHED, "2.72", "2.81", "12.587"), (Attention::Softmax, "5.96", "5.91", "27.363")]
    {
        let counts = model.counts(attention);
        assert_eq!(format!("{:.2}", counts.multiplications as f64 / 1e9), mul);
        assert_eq!(format!("{:.2}", counts.additions as f64 / 1e9), add);
        assert_eq!(format!("{:.3}", counts.energy_pj() / 1e9), energy);
    }
}

#[test]
fn what_is_not_counted_is_known() {
    // By its definition, token by token.
    let (tokens, heads, head_dim, anchors) = (7_u128, 3, 5, 4);
    let mut counts = Counts::default();
    for _ in 0..tokens * heads {
        counts.multiplications += head_dim + head_dim + anchors * head_dim;
        counts.additions += (head_dim - 1) + anchors;
    }
    assert_eq!(energy::uncounted(&Layer::new(7, 3, 5).unwrap(), 4), counts);

    // The squarings alone are 9.1 M multiplications and 1.3 % of the energy of the smallest model.
    let b0 = Model::named("pvtv2-b0").unwrap();
    let uncounted = b0.uncounted(25);
    let share = uncounted.energy_pj() / b0.counts(Attention::PUBLISHED).energy_pj();
    assert!((9_100_000..10_000_000).contains(&uncounted.multiplications), "{uncounted:?}");
    assert!((0.013..0.016).contains(&share), "{share}");
}

#[test]
fn sizes_have_limits_and_nothing_overflows() {
    for (i, name) in ["tokens", "heads", "head_dim"].into_iter().enumerate() {
        let mut sizes = [1; 3];
        sizes[i] = MAX_SIZE + 1;
        let error = Layer::new(sizes[0], sizes[1], sizes[2]).unwrap_err();
        assert!(matches!(error, Error::Value { argument, .. } if argument == name), "{error}");
    }
    let most = Layer::new(MAX_SIZE, MAX_SIZE, MAX_SIZE).unwrap();
    let n = MAX_SIZE as u128;
    assert_eq!(energy::softmax(&most).additions, 2 * n.pow(4));
    let eco = energy::ecoformer(&most, u32::MAX, u32::MAX);
    assert!(eco.multiplications > n * n * u128::from(u32::MAX).pow(2));
    for size in 0..3 {
        let mut sizes = [5; 3];
        sizes[size] = 0;
        let none = Layer::new(sizes[0], sizes[1], sizes[2]).unwrap();
        assert_eq!(energy::softmax(&none).additions, 0);
        if size < 2 {
            let all =
                [energy::softmax(&none), energy::ecoformer(&none, 16, 25), energy::uncounted(&none, 25)];
            assert_eq!(all, [Counts::default(); 3]);
        }
    }
}

#[test]
fn counts_add_up() {
    let layer = Layer::new(10, 2, 4).unwrap();
    let one = energy::ecoformer(&layer, 8, 5);
    assert_eq!(one + one + one, one * 3);
    assert_eq!([one; 3].into_iter().sum::<Counts>(), one * 3);
    let counts = Counts { multiplications: 10, additions: 5 };
    assert_eq!((counts.energy_pj(), counts.area_um2()), (41.5, 97_920));
    assert_eq!(Model::named("pvtv2-b9"), None);
    assert_eq!(Model::ALL.map(|m| Model::named(m.name)), Model::ALL.map(Some));
}
