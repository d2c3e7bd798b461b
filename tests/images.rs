//! Images of any size and kind, in a folder by class.
#![allow(clippy::unwrap_used)]

mod common;

use common::Workspace;
use edge_nas::data::{Data, DataSpec};
use image::codecs::{jpeg::JpegEncoder, png::PngEncoder};
use image::{ImageBuffer, ImageEncoder, Luma, LumaA, Rgb, RgbImage};
use std::fs;
use std::path::PathBuf;
use tempfile::TempDir;

/// A folder of two classes, `cat` and `dog`, whose images are added by the tests.
struct Folder(TempDir);

impl Folder {
    fn new() -> Folder {
        let folder = Folder(tempfile::tempdir().unwrap());
        for class in ["train/cat", "train/dog", "test/cat", "test/dog"] {
            fs::create_dir_all(folder.path(class)).unwrap();
        }
        folder
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Fills the folder up with grey images of this size, and loads it. The image `train/cat/a.*` comes first.
    fn load(&self, width: u32, height: u32, suffix: &str) -> Result<Data, String> {
        let grey = RgbImage::from_pixel(width, height, Rgb([99; 3]));
        for name in ["train/dog/z.png", "test/cat/z.png", "test/dog/z.png"] {
            grey.save(self.path(name)).unwrap();
        }
        let spec: DataSpec = format!("folder:{}{suffix}", self.0.path().display()).parse().unwrap();
        Data::load(&spec).map_err(|error| error.to_string())
    }
}

/// The EXIF data of a camera that was held upright: rows of the file are columns, from right to left.
const ROTATED: [u8; 26] = *b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0";

#[test]
fn images_are_turned_as_their_exif_data_say() {
    let halves = RgbImage::from_fn(16, 8, |x, _| Rgb([if x < 8 { 30 } else { 220 }; 3]));
    let jpeg = Folder::new();
    let mut encoder = JpegEncoder::new_with_quality(fs::File::create(jpeg.path("train/cat/a.jpg")).unwrap(), 100);
    encoder.set_exif_metadata(ROTATED.into()).unwrap();
    encoder.encode_image(&halves).unwrap();
    let png = Folder::new();
    let mut encoder = PngEncoder::new(fs::File::create(png.path("train/cat/a.png")).unwrap());
    encoder.set_exif_metadata(ROTATED.into()).unwrap();
    encoder.write_image(&halves, 16, 8, image::ExtendedColorType::Rgb8).unwrap();
    for folder in [jpeg, png] {
        let data = folder.load(8, 16, "").unwrap();
        assert_eq!(data.train.shape, [3, 16, 8]);
        let expected = [vec![30u8; 64], vec![220; 64]].concat().repeat(3);
        let differences = data.train.image(0).iter().zip(&expected).map(|(found, expected)| found.abs_diff(*expected));
        assert!(differences.max().unwrap() <= 2, "{:?}", data.train.image(0));
    }
}

#[test]
fn every_kind_of_pixel_becomes_rgb_of_8_bits() {
    let pixels = |fill: &dyn Fn(PathBuf)| {
        let folder = Folder::new();
        fill(folder.path("train/cat/a.png"));
        let data = folder.load(3, 1, "").unwrap();
        let image = data.train.image(0);
        [0, 1, 2].map(|x| [image[x], image[3 + x], image[6 + x]])
    };

    // Transparent parts are blended over white.
    let grey = ImageBuffer::from_fn(3, 1, |x, _| LumaA([[0u8, 0], [0, 128], [200, 255]][x as usize]));
    assert_eq!(pixels(&|path| grey.save(path).unwrap()), [[255; 3], [127; 3], [200; 3]]);
    let indexed = pixels(&|path| {
        let mut encoder = png::Encoder::new(fs::File::create(path).unwrap(), 3, 1);
        encoder.set_color(png::ColorType::Indexed);
        encoder.set_palette(vec![250, 10, 20, 0, 0, 200]);
        encoder.set_trns(vec![255, 0]);
        encoder.write_header().unwrap().write_image_data(&[0, 1, 0]).unwrap();
    });
    assert_eq!(indexed, [[250, 10, 20], [255; 3], [250, 10, 20]]);

    let deep = ImageBuffer::from_fn(3, 1, |x, _| Rgb([[0u16, 77 * 257, 65535], [1; 3], [32896; 3]][x as usize]));
    assert_eq!(pixels(&|path| deep.save(path).unwrap()), [[0, 77, 255], [0; 3], [128; 3]]);
    let deep = ImageBuffer::from_fn(3, 1, |x, _| Luma([[0u16, 257, 65535][x as usize]]));
    assert_eq!(pixels(&|path| deep.save(path).unwrap()), [[0; 3], [1; 3], [255; 3]]);
}

#[test]
fn images_of_any_size_are_scaled_to_squares() {
    let wide = RgbImage::from_fn(5, 3, |x, y| Rgb([x as u8, y as u8, 7]));
    let high = RgbImage::from_fn(7, 9, |_, y| Rgb([10 * y as u8; 3]));
    let folder = Folder::new();
    wide.save(folder.path("train/cat/a.png")).unwrap();
    high.save(folder.path("train/cat/b.png")).unwrap();
    let error = folder.load(40, 30, "").err().unwrap();
    assert!(["b.png has 7x9", "expected 5x3", "`@64`"].iter().all(|part| error.contains(part)), "{error}");

    let data = folder.load(40, 30, "@3").unwrap();
    assert_eq!((data.train.shape, data.test.shape), ([3, 3, 3], [3, 3, 3]));
    // The centre of the wide image is three pixels wide and high.
    let (columns, rows) = ([1, 2, 3].repeat(3), [[0; 3], [1; 3], [2; 3]].concat());
    assert_eq!(data.train.image(0), [columns, rows, vec![7; 9]].concat());
    // Rows 1 to 7 of the high image are averaged: except in the middle, no value is that of a single row.
    let rows: Vec<u8> = data.train.image(1)[..9].chunks(3).map(|row| row[0]).collect();
    assert!((18..=22).contains(&rows[0]) && rows[1] == 40 && (58..=62).contains(&rows[2]), "{rows:?}");
    assert_eq!(data.test.image(0), [99; 27]);
    assert_eq!(folder.load(40, 30, "@64").unwrap().train.shape, [3, 64, 64]);
    assert_ne!(data.digest(), folder.load(40, 30, "@4").unwrap().digest());
}

#[test]
fn classes_of_very_different_sizes_are_mentioned() {
    let ws = Workspace::new();
    let said = |data: &str| {
        let output = ws.nas(&format!("export --run r --data folder:{data}")).output().unwrap();
        String::from_utf8(output.stderr).unwrap()
    };
    let image = RgbImage::new(4, 4);
    for class in ["train/cat", "train/dog", "test/cat", "test/dog"] {
        fs::create_dir_all(ws.path("uneven").join(class)).unwrap();
        image.save(ws.path("uneven").join(class).join("0.png")).unwrap();
    }
    let more = |i: usize| image.save(ws.path(&format!("uneven/train/dog/{i}.png"))).unwrap();
    more(1);
    assert!(!said("uneven").contains("training images of class"), "twice as many is not very different");
    more(2);
    let said = said("uneven");
    let warning = "warning: uneven has 3 training images of class `dog`, and 1 of `cat`";
    assert_eq!(said.matches(warning).count(), 1, "{said}");
}
