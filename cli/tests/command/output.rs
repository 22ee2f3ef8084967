//! Files that the command writes: what becomes of what stands at their place, and what is left when something goes wrong.

use crate::common::*;
use safetensors::{Dtype, SafeTensors};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// What stands at a place before.
const OLD: &str = "old";

/// A folder with a case whose answer has `m` x `n` elements.
fn case(name: &str, m: usize, n: usize) -> (PathBuf, PathBuf) {
    let folder = folder(name);
    let input = folder.join("case");
    let ramp = |len: usize| f32s(&(0..len).map(|i| i as f32).collect::<Vec<_>>());
    save(&input, &[("x", Dtype::F32, vec![m, 1], ramp(m)), ("w", Dtype::F32, vec![n, 1], ramp(n))], None);
    (folder, input)
}

fn run(input: &Path, out: &Path) -> Output {
    command(input, out).output().unwrap()
}

fn command(input: &Path, out: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_siskin"));
    command.args(["run", "linear", "--in"]).arg(input).arg("--out").arg(out);
    command
}

#[track_caller]
fn succeeded(output: &Output) {
    assert!(output.status.success(), "{}", text(&output.stderr));
}

/// The elements of the answer in a file's bytes.
fn elements(bytes: &[u8]) -> usize {
    SafeTensors::deserialize(bytes).unwrap().tensor("y").unwrap().data().len() / 4
}

#[track_caller]
fn answered(path: &Path, expected: usize) {
    assert_eq!(elements(&fs::read(path).unwrap()), expected);
}

/// The names in a folder, in order.
fn names(folder: &Path) -> Vec<String> {
    let name = |entry: std::io::Result<fs::DirEntry>| entry.unwrap().file_name().into_string().unwrap();
    let mut names: Vec<String> = fs::read_dir(folder).unwrap().map(name).collect();
    names.sort();
    names
}

#[test]
fn what_is_there_is_replaced() {
    let (folder, input) = case("replaced", 3, 5);
    let out = folder.join("y");
    for _ in 0..2 {
        succeeded(&run(&input, &out));
        answered(&out, 15);
    }
    fs::write(&out, OLD).unwrap();
    succeeded(&run(&input, &out));
    answered(&out, 15);
    assert_eq!(names(&folder), ["case", "y"]);

    // In the folder where it is called.
    let bare = command(Path::new("case"), Path::new("z")).current_dir(&folder).output().unwrap();
    succeeded(&bare);
    answered(&folder.join("z"), 15);
}

/// The input is missing, too: only what looks at the place first names it.
#[test]
fn a_bad_place_is_refused_before_the_work() {
    let (folder, input) = case("places", 3, 5);
    let missing = folder.join("missing");
    let under = input.join("y");
    for (out, expected) in [
        (folder.clone(), "a directory"),
        (folder.join("none/y"), "none"),
        (folder.join("new/"), "the name of a file"),
        (folder.join("new/."), "the name of a file"),
        (under, "expected a place that can be written"),
    ] {
        let output = run(&missing, &out);
        refused(&output, out.to_str().unwrap());
        refused(&output, expected);
    }
    // A minute of work for each length.
    let place = folder.to_str().unwrap();
    refused(&siskin(&["plot", "--min-ms", "60000", "--lengths", "2,3", "--out", place]), place);
    assert_eq!(names(&folder), ["case"]);
}

#[test]
fn what_is_read_is_not_written() {
    let (folder, input) = case("same", 3, 5);
    let before = fs::read(&input).unwrap();
    let link = folder.join("hard");
    fs::hard_link(&input, &link).unwrap();
    let dotted = folder.join(".").join("case");
    for (from, to) in [(&input, &input), (&input, &link), (&link, &input), (&input, &dotted)] {
        let output = run(from, to);
        refused(&output, &format!("{}: expected a file other than the input", to.display()));
        refused(&output, &format!("got the input {}", from.display()));
    }
    // The input as standard input, and as standard output.
    let stdin = File::open(&input).unwrap();
    refused(&command(Path::new("-"), &link).stdin(stdin).output().unwrap(), "got the input standard input");
    let stdout = File::options().append(true).open(&input).unwrap();
    let output = command(&input, Path::new("-")).stdout(stdout).output().unwrap();
    refused(&output, "standard output: expected a file other than the input");
    // The hash is read, too.
    for run in ["ecoformer-encode", "ecoformer-attention"] {
        let (missing, link) = (folder.join("missing"), link.to_str().unwrap());
        let args = ["run", run, "--in", missing.to_str().unwrap(), "--hash", link, "--out", link];
        refused(&siskin(&args), "hard: expected a file other than the input");
    }
    assert_eq!(fs::read(&input).unwrap(), before);
    assert_eq!(names(&folder), ["case", "hard"]);
}

#[test]
fn a_dash_is_standard_input_and_output() {
    let (folder, input) = case("dash", 3, 5);
    let out = folder.join("y");
    succeeded(&run(&input, &out));
    let answer = fs::read(&out).unwrap();
    let dash = Path::new("-");
    let open = || File::open(&input).unwrap();

    let through = command(dash, dash).stdin(open()).output().unwrap();
    succeeded(&through);
    assert_eq!(through.stdout, answer);
    assert_eq!(run(&input, dash).stdout, answer);
    let again = folder.join("again");
    succeeded(&command(dash, &again).stdin(open()).output().unwrap());
    assert_eq!(fs::read(&again).unwrap(), answer);

    let survey = ["survey", "-", "--json", "--tokens", "1", "--min-ms", "0", "--sparsity", "0"];
    let mut survey_of = Command::new(env!("CARGO_BIN_EXE_siskin"));
    let survey = survey_of.args(survey).stdin(open()).output().unwrap();
    succeeded(&survey);
    let survey: serde_json::Value = serde_json::from_slice(&survey.stdout).unwrap();
    assert_eq!(survey["model"], "standard input");

    let nothing = || command(dash, dash).stdin(Stdio::null()).output().unwrap();
    refused(&nothing(), "standard input: expected safetensors");
    refused(
        &siskin(&["run", "ecoformer-encode", "--in", "-", "--hash", "-", "--out", "-"]),
        "at most one file",
    );
    assert_eq!(names(&folder), ["again", "case", "y"]);
}

#[test]
fn a_plot_on_standard_output_leaves_messages_to_standard_error() {
    let folder = folder("plot-dash");
    let mut plot = Command::new(env!("CARGO_BIN_EXE_siskin"));
    plot.current_dir(&folder).args(["plot", "--lengths", "2,3", "--min-ms", "0", "--out", "-"]);
    let plot = plot.output().unwrap();
    succeeded(&plot);
    let (svg, times) = (text(&plot.stdout), text(&plot.stderr));
    assert!(svg.starts_with("<svg ") && svg.trim_end().ends_with("</svg>"), "{svg}");
    assert!(times.contains("microseconds"), "{times}");
    assert_eq!(names(&folder), [""; 0]);
}

#[cfg(unix)]
mod unix {
    use super::*;
    use rustix::process::{Pid, Signal, geteuid, kill_process};
    use std::io::Write;
    use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, chown, symlink};
    use std::os::unix::process::{CommandExt, ExitStatusExt};
    use std::process::Child;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o7777
    }

    fn set_mode(path: &Path, mode: u32) {
        fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
    }

    /// The call that [`command`] makes, by a shell that does something before.
    fn after(first: &str, input: &Path, out: &Path) -> Output {
        let direct = command(input, out);
        let mut shell = Command::new("sh");
        shell.arg("-c").arg(format!("{first}; exec \"$0\" \"$@\""));
        shell.arg(direct.get_program()).args(direct.get_args()).output().unwrap()
    }

    #[test]
    fn a_file_keeps_its_mode() {
        let (folder, input) = case("mode", 3, 5);
        let out = folder.join("y");
        for kept in [0o600, 0o640, 0o755] {
            fs::write(&out, OLD).unwrap();
            set_mode(&out, kept);
            succeeded(&run(&input, &out));
            answered(&out, 15);
            assert_eq!(mode(&out), kept);
        }
        for (mask, expected) in [("022", 0o644), ("077", 0o600), ("002", 0o664)] {
            fs::remove_file(&out).unwrap();
            succeeded(&after(&format!("umask {mask}"), &input, &out));
            assert_eq!(mode(&out), expected, "a new file with umask {mask}");
        }
    }

    #[test]
    fn a_file_keeps_its_owner_where_that_is_allowed() {
        if !geteuid().is_root() {
            eprintln!("SKIPPED: only root can give a file away");
            return;
        }
        let (folder, input) = case("owner", 3, 5);
        let out = folder.join("y");
        fs::write(&out, OLD).unwrap();
        chown(&out, Some(65534), Some(65533)).unwrap();
        set_mode(&out, 0o640);
        succeeded(&run(&input, &out));
        answered(&out, 15);
        let found = fs::metadata(&out).unwrap();
        assert_eq!((found.uid(), found.gid(), mode(&out)), (65534, 65533, 0o640));
    }

    #[test]
    fn a_link_stays_and_its_target_changes() {
        let (folder, input) = case("links", 3, 5);
        fs::create_dir(folder.join("deep")).unwrap();
        let (near, far, target) = (folder.join("near"), folder.join("deep/far"), folder.join("deep/target"));
        symlink("deep/far", &near).unwrap();
        symlink("target", &far).unwrap();
        // First there is nothing at the end of the links, then a file.
        for _ in 0..2 {
            succeeded(&run(&input, &near));
            answered(&target, 15);
            assert_eq!(fs::read_link(&near).unwrap(), Path::new("deep/far"));
            assert_eq!(fs::read_link(&far).unwrap(), Path::new("target"));
            fs::write(&target, OLD).unwrap();
            set_mode(&target, 0o600);
        }
        succeeded(&run(&input, &near));
        answered(&target, 15);
        assert_eq!(mode(&target), 0o600);
        assert_eq!(names(&folder), ["case", "deep", "near"]);
        assert_eq!(names(&folder.join("deep")), ["far", "target"]);

        let to_input = folder.join("to-input");
        symlink("case", &to_input).unwrap();
        let before = fs::read(&input).unwrap();
        refused(&run(&input, &to_input), "to-input: expected a file other than the input");
        refused(&run(&to_input, &input), "case: expected a file other than the input");
        let (circle, to_folder) = (folder.join("circle"), folder.join("to-folder"));
        symlink("circle", &circle).unwrap();
        symlink("deep", &to_folder).unwrap();
        refused(&run(&input, &circle), "circle: expected a place that can be written");
        refused(&run(&input, &to_folder), "to-folder: expected a file, a device or a pipe, got a directory");
        assert_eq!(fs::read(&input).unwrap(), before);
    }

    #[test]
    fn a_pipe_is_written_to() {
        let (folder, input) = case("fifo", 300, 500);
        let pipe = folder.join("pipe");
        assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        let reader = std::thread::spawn({
            let pipe = pipe.clone();
            move || fs::read(pipe).unwrap()
        });
        succeeded(&run(&input, &pipe));
        assert_eq!(elements(&reader.join().unwrap()), 150_000);
        assert!(fs::metadata(&pipe).unwrap().file_type().is_fifo());
        assert_eq!(names(&folder), ["case", "pipe"]);
        // It might never end, so it is not read.
        refused(&run(&pipe, &folder.join("y")), "pipe: expected a file, or - for standard input");
    }

    fn full() -> File {
        File::options().write(true).open("/dev/full").unwrap()
    }

    #[test]
    fn a_device_is_written_to() {
        let (folder, input) = case("devices", 3, 5);
        succeeded(&run(&input, Path::new("/dev/null")));
        assert!(fs::metadata("/dev/null").unwrap().file_type().is_char_device());
        let through = run(&input, Path::new("/dev/stdout"));
        succeeded(&through);
        assert_eq!(elements(&through.stdout), 15);
        if !cfg!(target_os = "linux") {
            eprintln!("SKIPPED: /dev/full is a device of Linux");
            return;
        }
        refused(&run(&input, Path::new("/dev/full")), "/dev/full: ");
        assert!(fs::metadata("/dev/full").unwrap().file_type().is_char_device());
        let output = command(&input, Path::new("-")).stdout(full()).output().unwrap();
        refused(&output, "standard output: ");
        assert_eq!(names(&folder), ["case"]);
    }

    #[test]
    fn help_that_cannot_be_printed_is_an_error() {
        if !cfg!(target_os = "linux") {
            eprintln!("SKIPPED: /dev/full is a device of Linux");
            return;
        }
        for args in
            [&["--help"][..], &["-h"], &["--version"], &["help"], &["run", "linear", "--help"], &["info"]]
        {
            let mut siskin = Command::new(env!("CARGO_BIN_EXE_siskin"));
            siskin.args(args);
            refused(&siskin.stdout(full()).output().unwrap(), "standard output: ");
            // Nobody reads it, as after `| head -1`.
            let (reader, writer) = std::io::pipe().unwrap();
            drop(reader);
            let output = siskin.stdout(writer).output().unwrap();
            succeeded(&output);
            assert_eq!(text(&output.stderr), "", "{args:?}");
        }
        // Nor can what is wrong be said here, but by the status.
        for args in [&["verify", "--isa", "mmx"][..], &["--no-such-flag"]] {
            let mut siskin = Command::new(env!("CARGO_BIN_EXE_siskin"));
            assert_eq!(siskin.args(args).stderr(full()).status().unwrap().code(), Some(2));
        }
    }

    #[test]
    fn what_may_not_be_written_is_refused() {
        let (folder, _) = case("read-only", 3, 5);
        let (closed, locked) = (folder.join("closed"), folder.join("open"));
        for (place, mode) in [(&closed, 0o555), (&locked, 0o777)] {
            fs::create_dir(place).unwrap();
            fs::write(place.join("y"), OLD).unwrap();
            set_mode(place, mode);
        }
        set_mode(&locked.join("y"), 0o444);
        let missing = folder.join("missing");
        for out in [closed.join("y"), closed.join("new"), locked.join("y")] {
            let mut command = command(&missing, &out);
            if geteuid().is_root() {
                // Nothing is closed to root.
                command.uid(65534);
            }
            match command.output() {
                Ok(output) => refused(&output, out.to_str().unwrap()),
                Err(e) => eprintln!("SKIPPED: another user than root cannot start the command: {e}"),
            }
        }
        set_mode(&closed, 0o755);
        for place in [&closed, &locked] {
            assert_eq!(names(place), ["y"]);
            assert_eq!(fs::read_to_string(place.join("y")).unwrap(), OLD);
        }
    }

    #[test]
    fn a_limit_of_size_leaves_the_old_file() {
        let (folder, input) = case("limit", 300, 500);
        let out = folder.join("y");
        fs::write(&out, OLD).unwrap();
        for out in [&out, &folder.join("new")] {
            // Of 600,000 bytes at most 8 x 1024.
            refused(&after("ulimit -f 8", &input, out), out.to_str().unwrap());
            assert_eq!(names(&folder), ["case", "y"]);
        }
        assert_eq!(fs::read_to_string(&out).unwrap(), OLD);
        // Standard output, too.
        let printed = folder.join("printed");
        let first = format!("ulimit -f 8; exec > '{}'", printed.display());
        refused(&after(&first, &input, Path::new("-")), "standard output: ");
    }

    /// The signals that end a command, but for those that whoever runs the tests has ignored.
    fn signals() -> Vec<Signal> {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
        let ignored = ignored.map_or(0, |bits| u64::from_str_radix(bits.trim(), 16).unwrap());
        let all = [Signal::INT, Signal::TERM, Signal::HUP];
        let (skipped, signals): (Vec<_>, Vec<_>) =
            all.into_iter().partition(|signal| ignored >> (signal.as_raw() - 1) & 1 == 1);
        if !skipped.is_empty() {
            eprintln!("SKIPPED: {skipped:?}, which are ignored here");
        }
        signals
    }

    fn send(child: &Child, signal: Signal) {
        let pid = Pid::from_raw(child.id().try_into().unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    #[test]
    fn a_signal_before_the_result_leaves_the_old_file() {
        let (folder, _) = case("signal", 3, 5);
        let out = folder.join("y");
        fs::write(&out, OLD).unwrap();
        for signal in signals() {
            let mut child = command(Path::new("-"), &out).stdin(Stdio::piped()).spawn().unwrap();
            let mut stdin = child.stdin.take().unwrap();
            // More than a pipe holds: when it is gone, the command has looked at the place, and reads.
            stdin.write_all(&vec![0; 4 << 20]).unwrap();
            send(&child, signal);
            assert_eq!(child.wait().unwrap().signal(), Some(signal.as_raw()));
            assert_eq!(names(&folder), ["case", "y"]);
            assert_eq!(fs::read_to_string(&out).unwrap(), OLD);
        }
    }

    #[test]
    fn a_signal_amid_the_writing_leaves_the_old_file() {
        const ELEMENTS: usize = 1 << 24;
        const TRIES: usize = 20;
        let (folder, input) = case("amid", 1 << 11, ELEMENTS >> 11);
        let out = folder.join("y");
        for signal in signals() {
            let caught = (0..TRIES).any(|_| {
                fs::write(&out, OLD).unwrap();
                let mut child = command(&input, &out).spawn().unwrap();
                // Until there is a third file, or it is over.
                let mut over = None;
                while names(&folder).len() == 2 && over.is_none() {
                    over = child.try_wait().unwrap();
                }
                if over.is_none() {
                    send(&child, signal);
                }
                let status = child.wait().unwrap();
                assert_eq!(names(&folder), ["case", "y"], "{status}");
                let bytes = fs::read(&out).unwrap();
                if bytes == OLD.as_bytes() {
                    assert_eq!(status.signal(), Some(signal.as_raw()));
                    return true;
                }
                assert_eq!(elements(&bytes), ELEMENTS, "{status}");
                false
            });
            if !caught {
                eprintln!("SKIPPED: {signal:?} never came before the file was written");
            }
        }
    }

    /// As `nohup` does, and a shell with what it runs in the background.
    #[test]
    fn an_ignored_signal_stays_ignored() {
        if !cfg!(target_os = "linux") {
            eprintln!("SKIPPED: only Linux says which signals are ignored");
            return;
        }
        let (folder, input) = case("ignored", 1 << 11, 1 << 12);
        let out = folder.join("y");
        let direct = command(&input, &out);
        let mut shell = Command::new("sh");
        shell
            .args(["-c", "trap '' HUP; exec \"$0\" \"$@\""])
            .arg(direct.get_program())
            .args(direct.get_args());
        let mut child = shell.spawn().unwrap();
        // Once it writes, or when it is over.
        let mut over = None;
        while names(&folder).len() == 1 && over.is_none() {
            over = child.try_wait().unwrap();
        }
        if over.is_none() {
            send(&child, Signal::HUP);
        }
        assert!(child.wait().unwrap().success());
        answered(&out, 1 << 23);
        assert_eq!(names(&folder), ["case", "y"]);
    }
}
