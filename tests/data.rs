//! Data sets from real files, complete and damaged.
#![allow(clippy::unwrap_used)]

use std::collections::HashSet;
use std::fs;
use std::io::Write;
use std::path::Path;

use edge_nas::data::{Data, DataSpec, Normalisation};
use flate2::{Compression, write::GzEncoder};
use image::{GrayImage, Luma, Rgb, RgbImage};
use tempfile::TempDir;

fn load(text: impl AsRef<str>) -> Result<Data, String> {
    let spec: DataSpec = text.as_ref().parse().map_err(|error: edge_nas::data::Error| error.to_string())?;
    Data::load(&spec).map_err(|error| error.to_string())
}

/// Loads `dir` by its contents, which must fail with a message of one line that contains all of `parts`.
#[track_caller]
fn assert_fails(dir: &Path, parts: &[&str]) {
    let message = load(dir.to_str().unwrap()).err().expect("loads, but should not");
    for part in parts {
        assert!(message.contains(part), "`{part}` is not in: {message}");
    }
    assert!(!message.contains('\n'), "{message}");
}

// CIFAR-10

/// Two training records per file, and ten test records. Image k consists of the byte k, and its label is k % 10.
fn cifar10() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let names = (1..=5).map(|k| format!("data_batch_{k}.bin")).chain(["test_batch.bin".into()]);
    for (file, name) in names.enumerate() {
        let first = 2 * file;
        let records = (first..first + if first < 10 { 2 } else { 10 }).map(|k| {
            let mut record = vec![k as u8; 3073];
            record[0] = (k % 10) as u8;
            record
        });
        fs::write(dir.path().join(name), records.flatten().collect::<Vec<u8>>()).unwrap();
    }
    let names = "airplane\nautomobile\nbird\ncat\ndeer\ndog\nfrog\nhorse\nship\ntruck\n\n";
    fs::write(dir.path().join("batches.meta.txt"), names).unwrap();
    dir
}

#[test]
fn cifar10_loads_by_name_by_contents_and_from_the_folder_above() {
    let dir = cifar10();
    let path = dir.path().to_str().unwrap();
    let above = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(path, above.path().join("cifar-10-batches-bin")).unwrap();
    let named = load(format!("cifar10:{path}")).unwrap();
    for data in [&load(path).unwrap(), &load(above.path().to_str().unwrap()).unwrap()] {
        assert_eq!(data.digest(), named.digest());
    }
    assert_eq!((named.train.len(), named.test.len()), (10, 10));
    assert_eq!(named.train.shape, [3, 32, 32]);
    assert_eq!(named.train.classes[9], "truck");
    assert_eq!((named.train.label(7), named.train.image(7)), (7, [7; 3072].as_slice()));
    assert_eq!((named.test.label(1), named.test.image(1)), (1, [11; 3072].as_slice()));
}

#[test]
fn damage_in_cifar10_is_reported_with_its_offset() {
    let dir = cifar10();
    let batch = dir.path().join("data_batch_3.bin");
    let good = fs::read(&batch).unwrap();

    fs::write(&batch, &good[..4000]).unwrap();
    assert_fails(dir.path(), &["data_batch_3.bin", "byte 3073", "expected a record of 3073 bytes", "927 bytes"]);
    fs::write(&batch, []).unwrap();
    assert_fails(dir.path(), &["data_batch_3.bin", "byte 0", "expected a record of 3073 bytes", "0 bytes"]);
    let mut bad = good.clone();
    bad[3073] = 10;
    fs::write(&batch, bad).unwrap();
    assert_fails(dir.path(), &["data_batch_3.bin", "byte 3073", "expected a label below 10", "found 10"]);
    fs::remove_file(&batch).unwrap();
    assert_fails(dir.path(), &["data_batch_3.bin is missing"]);

    fs::write(&batch, good).unwrap();
    fs::write(dir.path().join("batches.meta.txt"), "airplane\n").unwrap();
    assert_fails(dir.path(), &["batches.meta.txt", "byte 9", "expected 10 class names", "found 1"]);
}

#[test]
fn a_channel_with_a_single_value_cannot_be_normalised() {
    let dir = cifar10();
    let train = load(dir.path().to_str().unwrap()).unwrap().train;
    let flat = |indices: &[usize]| Normalisation::of(&train, indices).unwrap_err().to_string();
    assert!(flat(&[4]).contains("channel 0 has a single value in all 1 images"));
    assert!(flat(&[]).contains("in all 0 images"));
}

#[test]
fn the_real_cifar10_has_the_published_statistics() {
    let Some(dir) = std::env::var_os("CIFAR10_DIR") else {
        // Not eprintln!, which the test harness captures.
        let line = "skipped: set CIFAR10_DIR to the folder of CIFAR-10's binary version to run this test";
        return writeln!(std::io::stderr(), "{line}").unwrap();
    };
    let data = load(format!("cifar10:{}", dir.to_str().unwrap())).unwrap();
    assert_eq!((data.train.len(), data.test.len()), (50_000, 10_000));
    let found = Normalisation::of(&data.train, &data.train.indices()).unwrap();
    for (found, known) in found.mean.iter().chain(&found.std).zip([0.4914, 0.4822, 0.4465, 0.2470, 0.2435, 0.2616]) {
        assert!((found - known).abs() < 1e-3, "{found} is not {known}");
    }
}

// IDX

fn idx_file(magic: u32, dims: &[u32], content: &[u8]) -> Vec<u8> {
    let words = [magic].into_iter().chain(dims.iter().copied());
    words.flat_map(u32::to_be_bytes).chain(content.iter().copied()).collect()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// Three 2x3 training images, gzipped, and three test images, plain.
fn idx() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: Vec<u8>| fs::write(dir.path().join(name), bytes).unwrap();
    let pixels: Vec<u8> = (0..18).collect();
    write("train-images-idx3-ubyte.gz", gzip(&idx_file(0x803, &[3, 2, 3], &pixels)));
    write("train-labels-idx1-ubyte.gz", gzip(&idx_file(0x801, &[3], &[2, 0, 1])));
    write("t10k-images-idx3-ubyte", idx_file(0x803, &[3, 2, 3], &[9; 18]));
    write("t10k-labels-idx1-ubyte", idx_file(0x801, &[3], &[2, 1, 0]));
    dir
}

#[test]
fn idx_loads_with_and_without_class_names() {
    let dir = idx();
    let path = dir.path().to_str().unwrap();
    let data = load(path).unwrap();
    assert_eq!((data.train.len(), data.test.len(), data.train.shape), (3, 3, [1, 2, 3]));
    assert_eq!((data.train.label(0), data.train.image(1)), (2, [6, 7, 8, 9, 10, 11].as_slice()));
    assert_eq!((data.test.label(0), data.test.image(0)), (2, [9; 6].as_slice()));
    assert_eq!(data.test.classes, ["0", "1", "2"]);

    fs::write(dir.path().join("classes.txt"), "a\nb\nc\n").unwrap();
    let named = load(format!("idx:{path}")).unwrap();
    assert_eq!(named.train.classes, ["a", "b", "c"]);
    assert_ne!(named.digest(), data.digest());
}

#[test]
fn damage_in_idx_files_is_reported_with_its_offset() {
    let cases: [(&str, Vec<u8>, &[&str]); 10] = [
        ("t10k-images-idx3-ubyte", vec![0; 7], &["byte 7", "expected a header of 16 bytes", "found 7 bytes"]),
        (
            "t10k-images-idx3-ubyte",
            idx_file(0x801, &[1, 2, 3], &[9; 6]),
            &["byte 0", "expected the magic number 0x0803", "found 0x0801"],
        ),
        (
            "t10k-images-idx3-ubyte",
            idx_file(0x803, &[3, 2, 3], &[9; 17]),
            &["byte 33", "expected 34 bytes", "found 33 bytes"],
        ),
        (
            "t10k-images-idx3-ubyte",
            idx_file(0x803, &[3, 2, 3], &[9; 20]),
            &["byte 34", "expected 34 bytes", "found 36 bytes"],
        ),
        (
            "t10k-images-idx3-ubyte",
            idx_file(0x803, &[u32::MAX; 3], &[9; 6]),
            &["byte 22", "expected 79228162458924105385300197391 bytes", "found 22 bytes"],
        ),
        (
            "t10k-images-idx3-ubyte",
            idx_file(0x803, &[3, 3, 2], &[9; 18]),
            &["byte 8", "expected 2 rows and 3 columns", "found 3 rows and 2 columns"],
        ),
        ("t10k-labels-idx1-ubyte", idx_file(0x801, &[0], &[]), &["byte 4", "expected a dimension above 0"]),
        ("t10k-labels-idx1-ubyte", idx_file(0x801, &[2], &[0, 0]), &["byte 4", "expected 3 labels", "found 2"]),
        (
            "t10k-labels-idx1-ubyte",
            idx_file(0x801, &[3], &[3, 0, 1]),
            &["byte 8", "expected a label below 3", "found 3"],
        ),
        (
            "train-images-idx3-ubyte.gz",
            gzip(&idx_file(0x803, &[3, 2, 3], &[0; 18]))[..20].to_vec(),
            &["byte ", "expected a complete gzip stream"],
        ),
    ];
    for (name, bytes, parts) in cases {
        let dir = idx();
        fs::write(dir.path().join(name), bytes).unwrap();
        assert_fails(dir.path(), &[&[name], parts].concat());
    }
    let dir = idx();
    fs::remove_file(dir.path().join("t10k-labels-idx1-ubyte")).unwrap();
    assert_fails(dir.path(), &["t10k-labels-idx1-ubyte or t10k-labels-idx1-ubyte.gz is missing"]);
}

// Folders of images

/// Images of 5x4 pixels: two classes, PNG and JPEG, colour and grey, and a hidden file.
fn folder() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| {
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        path
    };
    RgbImage::from_fn(5, 4, |x, y| Rgb([x as u8, y as u8, 200])).save(at("train/cat/a.png")).unwrap();
    GrayImage::from_pixel(5, 4, Luma([77])).save(at("train/cat/b.png")).unwrap();
    RgbImage::from_pixel(5, 4, Rgb([128; 3])).save(at("train/dog/a.jpg")).unwrap();
    GrayImage::from_pixel(5, 4, Luma([60])).save(at("test/cat/a.png")).unwrap();
    GrayImage::from_pixel(5, 4, Luma([50])).save(at("test/dog/a.JPEG")).unwrap();
    fs::write(at("test/dog/.index"), "").unwrap();
    dir
}

#[test]
fn a_folder_of_images_loads_as_rgb_planes() {
    let dir = folder();
    let data = load(dir.path().to_str().unwrap()).unwrap();
    assert_eq!((data.train.len(), data.test.len(), data.train.shape), (3, 2, [3, 4, 5]));
    assert_eq!(data.train.classes, ["cat", "dog"]);
    assert_eq!([0, 1, 2].map(|i| data.train.label(i)), [0, 0, 1]);
    assert_eq!([0, 1].map(|i| data.test.label(i)), [0, 1]);
    let columns = [0, 1, 2, 3, 4].repeat(4);
    let rows = [[0; 5], [1; 5], [2; 5], [3; 5]].concat();
    assert_eq!(data.train.image(0), [columns, rows, vec![200; 20]].concat());
    assert_eq!(data.train.image(1), [77; 60]);
    assert!(data.train.image(2).iter().all(|value| value.abs_diff(128) <= 2));
}

#[test]
fn a_problem_in_a_folder_of_images_is_reported_with_its_file() {
    let dir = folder();
    RgbImage::new(6, 4).save(dir.path().join("test/dog/b.png")).unwrap();
    assert_fails(dir.path(), &["test/dog/b.png", "6x4", "expected 5x4", "train/cat/a.png"]);

    let noise = RgbImage::from_fn(5, 4, |x, y| Rgb([(x * 91) as u8, (y * 57) as u8, (x * y * 29) as u8]));
    for (name, expected) in [("b.png", "expected a complete PNG or JPEG image"), ("b.jpg", "expected the end marker")] {
        let dir = folder();
        let path = dir.path().join("test/dog").join(name);
        noise.save(&path).unwrap();
        let bytes = fs::read(&path).unwrap();
        let end = bytes.len() - 20;
        // Phones append videos, whose bytes may look like the markers of a JPEG.
        fs::write(&path, [&bytes, b"video \xff\xd9 \xff\xda".as_slice()].concat()).unwrap();
        load(dir.path().to_str().unwrap()).unwrap();
        fs::write(&path, &bytes[..end]).unwrap();
        assert_fails(dir.path(), &[name, &format!("byte {end}"), expected]);
        fs::write(&path, "not an image").unwrap();
        assert_fails(dir.path(), &[name, "byte ", "expected a complete PNG or JPEG image"]);
    }

    let dir = folder();
    fs::write(dir.path().join("train/cat/notes.txt"), "").unwrap();
    assert_fails(dir.path(), &["train/cat/notes.txt is not a .png, .jpg or .jpeg image"]);

    let dir = folder();
    fs::create_dir(dir.path().join("test/cow")).unwrap();
    assert_fails(dir.path(), &["test/cow is not a folder named after a class in train/"]);

    let dir = folder();
    fs::create_dir(dir.path().join("train/cow")).unwrap();
    assert_fails(dir.path(), &["a .png or .jpg image is missing", "train/cow"]);

    let dir = folder();
    fs::remove_dir_all(dir.path().join("test")).unwrap();
    assert_fails(dir.path(), &["test/", "is missing"]);
}

#[test]
fn a_class_that_cannot_be_told_or_tested_is_an_error() {
    let dir = folder();
    fs::remove_dir_all(dir.path().join("test/cat")).unwrap();
    assert_fails(dir.path(), &["class `cat`", "training images and no test images", "add some"]);
    fs::remove_dir_all(dir.path().join("train/cat")).unwrap();
    assert_fails(dir.path(), &["all training images", "one class, `dog`", "add images of a second class"]);

    let dir = idx();
    fs::write(dir.path().join("t10k-labels-idx1-ubyte"), idx_file(0x801, &[3], &[2, 2, 0])).unwrap();
    assert_fails(dir.path(), &["class `1`", "no test images"]);
    let dir = cifar10();
    fs::write(dir.path().join("test_batch.bin"), vec![0; 3073]).unwrap();
    assert_fails(dir.path(), &["class `automobile`", "no test images"]);
}

/// Replacing their invalid bytes would merge these classes into one.
#[test]
fn classes_whose_names_are_not_utf8_are_named_in_an_error() {
    use std::os::unix::ffi::OsStrExt;
    let dir = folder();
    for name in [b"caf\xe9", b"caf\xe8"] {
        let class = dir.path().join("train").join(std::ffi::OsStr::from_bytes(name));
        fs::create_dir(&class).unwrap();
        fs::copy(dir.path().join("train/cat/a.png"), class.join("a.png")).unwrap();
    }
    assert_fails(dir.path(), &["train/caf\\xE8", "must be UTF-8", "rename"]);
}

#[test]
fn only_regular_files_are_read() {
    let fifo = |path: &Path| {
        assert!(std::process::Command::new("mkfifo").arg(path).status().unwrap().success());
    };
    let dir = folder();
    fifo(&dir.path().join("train/cat/c.png"));
    assert_fails(dir.path(), &["train/cat/c.png is not a regular file"]);
    fs::remove_file(dir.path().join("train/cat/c.png")).unwrap();
    std::os::unix::fs::symlink("/dev/zero", dir.path().join("train/cat/c.png")).unwrap();
    assert_fails(dir.path(), &["train/cat/c.png is not a regular file"]);
    fs::remove_file(dir.path().join("train/cat/c.png")).unwrap();
    std::os::unix::fs::symlink("a.png", dir.path().join("train/cat/c.png")).unwrap();
    assert_eq!(load(dir.path().to_str().unwrap()).unwrap().train.len(), 4);

    for (dir, name) in [
        (cifar10(), "data_batch_2.bin"),
        (cifar10(), "batches.meta.txt"),
        (idx(), "t10k-labels-idx1-ubyte"),
        (idx(), "classes.txt"),
    ] {
        let path = dir.path().join(name);
        let _ = fs::remove_file(&path);
        fifo(&path);
        assert_fails(dir.path(), &[name, "is not a regular file"]);
    }
}

// Names of data sets

#[test]
fn a_data_set_name_is_parsed_and_printed_unchanged() {
    assert_eq!(DataSpec::default().to_string(), "embedded");
    for text in [
        "embedded",
        "cifar10:/a/b",
        "idx:c",
        "folder:./d:e",
        "/plain",
        "./with:colon",
        "./embedded",
        "folder:a/b@64",
        "d@4096",
        "me@home",
        "d@64/",
    ] {
        let spec: DataSpec = text.parse().unwrap();
        assert_eq!(spec.to_string(), text);
        let json = serde_json::to_string(&spec).unwrap();
        assert_eq!(json, format!("\"{text}\""));
        assert_eq!(serde_json::from_str::<DataSpec>(&json).unwrap(), spec);
    }
    for text in ["d@0", "folder:d@4097", "folder:d@99999999999"] {
        let message = text.parse::<DataSpec>().unwrap_err().to_string();
        assert!(message.contains(&format!("`{text}`")) && message.contains("from 1 to 4096"), "{message}");
    }
    let dir = cifar10();
    let path = dir.path().display();
    for text in [format!("cifar10:{path}@64"), format!("{path}@64")] {
        assert!(load(text).err().unwrap().contains("cifar10, whose images are not scaled"));
    }
    for text in ["", "cifar10:", "cifar100:/a", "embedded:/a", "embedded@64", "folder:@64"] {
        let message = text.parse::<DataSpec>().unwrap_err().to_string();
        assert!(message.contains(&format!("`{text}`")) && message.contains("`cifar10:FOLDER`"), "{message}");
    }
}

#[test]
fn the_error_for_an_unknown_folder_lists_the_expected_files() {
    let dir = tempfile::tempdir().unwrap();
    assert_fails(dir.path(), &["data_batch_1.bin", "train-images-idx3-ubyte", "train/<class>/"]);
    assert_fails(&dir.path().join("absent"), &["absent", "check the path"]);
}

#[test]
fn the_embedded_data_set_is_balanced_and_small() {
    let data = load("embedded").unwrap();
    assert_eq!(data.train.classes[9], "Ankle boot");
    for (set, per_class) in [(&data.train, 800), (&data.test, 200)] {
        assert_eq!(set.shape, [1, 28, 28]);
        assert_eq!(set.classes.len(), 10);
        for class in 0..10 {
            assert_eq!(set.indices().iter().filter(|&&i| set.label(i) == class).count(), per_class);
        }
    }
    let train: HashSet<&[u8]> = data.train.indices().into_iter().map(|i| data.train.image(i)).collect();
    assert!(data.test.indices().into_iter().all(|i| !train.contains(data.test.image(i))));
    let files = fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/src/data/fashion_mnist")).unwrap();
    assert!(files.map(|file| file.unwrap().metadata().unwrap().len()).sum::<u64>() <= 5_000_000);
}
