//! The picture of time against length.

use crate::common::*;
use std::fs;

#[test]
fn a_plot_names_all_that_it_draws() {
    let folder = folder("plot");
    let draw = |name: &str, more: &[&str]| {
        let path = folder.join(name);
        let output = siskin(&[&["plot", "--out", path.to_str().unwrap()], more].concat());
        assert!(output.status.success(), "{}", text(&output.stderr));
        let svg = fs::read_to_string(path).unwrap();
        check_xml(&svg);
        (text(&output.stdout).to_string(), svg)
    };
    let names = ["softmax, f32", "clipped softmax, INT8", "EcoFormer: hash + attention"];
    let (printed, svg) = draw("quick.svg", &["--quick"]);
    assert!(svg.starts_with("<svg ") && svg.contains("xmlns=\"http://www.w3.org/2000/svg\""));
    for name in names.into_iter().chain(["1 head of 64 features", "tokens of a sequence", "time of a call"]) {
        assert!(svg.contains(name), "{name} is not drawn");
    }
    let corners = |line: &str| {
        let (_, points) = line.split_once("points=\"").unwrap();
        points.split('"').next().unwrap().split_whitespace().count()
    };
    let thick =
        svg.lines().filter(|line| line.starts_with("<polyline") && line.contains("stroke-width=\"2\""));
    // Each line through three lengths, and a sample of each beside its name.
    assert_eq!(thick.map(corners).collect::<Vec<_>>(), [3, 3, 3, 2, 2, 2]);
    for name in names {
        assert!(printed.contains(name), "{name} is not printed");
    }

    let chosen =
        ["--lengths", "40,10,20", "--heads", "2", "--head-dim", "8", "--min-ms", "0", "--isa", "scalar"];
    let (printed, svg) = draw("chosen.svg", &chosen);
    for part in ["2 heads of 8 features", "scalar on one thread of"] {
        assert!(printed.contains(part) && svg.contains(part), "{part}");
    }
    for length in ["10", "20", "40"] {
        assert!(svg.contains(&format!("\n{length}\n")), "{length} is not marked");
    }
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 2);
}

#[test]
fn a_bad_plot_leaves_no_file() {
    let folder = folder("plot-bad");
    let path = folder.join("time.svg");
    let path = path.to_str().unwrap();
    for (more, names) in [
        (&["--lengths", "5"][..], "--lengths"),
        (&["--lengths", "5,5"], "--lengths"),
        (&["--lengths", "0,5"], "n:"),
        (&["--lengths", "5,100000"], "seq:"),
        (&["--lengths", "5,x"], "--lengths"),
        (&["--quick", "--head-dim", "257"], "head_dim"),
        (&["--quick", "--lengths", "5,6"], "--lengths"),
        (&["--quick", "--isa", "mmx"], "isa"),
    ] {
        refused(&siskin(&[&["plot", "--out", path], more].concat()), names);
    }
    let nowhere = folder.join("nowhere").join("time.svg");
    let args = ["plot", "--lengths", "2,3", "--min-ms", "0", "--out", nowhere.to_str().unwrap()];
    refused(&siskin(&args), "nowhere");
    refused(&siskin(&["plot"]), "--out");
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 0);
}
