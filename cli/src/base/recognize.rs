//! What a file is that is no safetensors file, by its first bytes, and how to get one.

/// The kind of file that bytes are, if it is one that people have: for a sentence that ends in what to do.
pub fn kind_of(bytes: &[u8]) -> Option<&'static str> {
    // A length, then JSON: a safetensors file that is cut off, or wrong in another way.
    if bytes.get(8) == Some(&b'{') {
        return None;
    }
    let has = |part: &[u8]| bytes[..bytes.len().min(512)].windows(part.len()).any(|window| window == part);
    let text = bytes[..bytes.len().min(64)].trim_ascii_start().to_ascii_lowercase();
    Some(match bytes {
        [b'G', b'G', b'U', b'F', ..] => {
            "this is a GGUF file, whose weights are quantized in blocks of its own; take the safetensors file of the model that it was \
             made from"
        }
        [b'P', b'K', 3, 4, ..] if has(b".npy") => {
            "this is an .npz file; in Python: safetensors.numpy.save_file(dict(numpy.load(FILE)), \"model.safetensors\")"
        }
        [b'P', b'K', 3, 4, ..] => {
            "this is a zip file, as torch.save writes them (.bin, .pt, .pth); in Python: \
             safetensors.torch.save_file(torch.load(FILE, weights_only=True), \"model.safetensors\")"
        }
        [0x80, 2..=5, ..] => {
            "this is a Python pickle, as torch.save wrote them (.bin, .pt, .pth); in Python: \
             safetensors.torch.save_file(torch.load(FILE, weights_only=True), \"model.safetensors\")"
        }
        [0x93, b'N', b'U', b'M', b'P', b'Y', ..] => {
            "this is an .npy file; in Python: safetensors.numpy.save_file({\"w\": numpy.load(FILE)}, \"model.safetensors\")"
        }
        [0x89, b'H', b'D', b'F', ..] => {
            "this is an HDF5 file; take the model's safetensors file, or save its arrays as one"
        }
        [0x1f, 0x8b, ..] => "this is compressed by gzip; unpack it first",
        [8, 1..=20, 0x12 | 0x1a | 0x3a, ..] => {
            "this looks like an ONNX model; take the safetensors file of the model that it was exported from"
        }
        _ if bytes.starts_with(b"version https://git-lfs") => {
            "this is a pointer of Git LFS, not the file that it stands for; run `git lfs pull` where it was cloned"
        }
        _ if text.starts_with(b"<!doctype") || text.starts_with(b"<html") => {
            "this is a web page; download the file itself"
        }
        _ if text.starts_with(b"{") || text.starts_with(b"[") => {
            "this is JSON; give the .safetensors file, or to survey the index of a checkpoint under its own name (*.index.json)"
        }
        _ => return None,
    })
}
