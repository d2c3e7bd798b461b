//! A folder with a subfolder of images for each class: `train/<class>/*.png` or `.jpg`, and the same below `test/`.
//!
//! Images become 8-bit RGB, are rotated as their EXIF data say, and get a white background where they are transparent.

use std::fs;
use std::io::{self, Cursor};
use std::path::{Path, PathBuf};

use image::imageops::{self, FilterType};
use image::{DynamicImage, ImageDecoder, ImageReader, ImageResult, Limits, RgbImage, Rgba, RgbaImage};
use rayon::prelude::*;

use super::{Data, Dataset, Error, Format, read_file};
use crate::bounded::Side;

pub const FORMAT: Format = Format {
    name: "folder",
    files: "train/<class>/*.png or *.jpg, and the same below test/",
    present: |dir| dir.join("train").is_dir(),
    load,
};

/// Loads images that have the same size, or scales them to squares of `side` pixels.
fn load(dir: &Path, side: Option<Side>) -> Result<Data, Error> {
    let classes = entries(&part(dir, "train")?)?;
    let classes = classes.iter().map(|class| class_name(class)).collect::<Result<Vec<_>, _>>()?;
    let mut size = None;
    Ok(Data {
        name: name(dir),
        train: read(dir, "train", &classes, side, &mut size)?,
        test: read(dir, "test", &classes, side, &mut size)?,
    })
}

/// Returns the last component of a path, as text.
pub fn name(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}

/// Returns the name of the class whose images a folder holds.
fn class_name(path: &Path) -> Result<String, Error> {
    let name = path.file_name().and_then(|name| name.to_str()).map(str::to_owned);
    name.ok_or_else(|| Error::ClassName { path: path.to_owned() })
}

fn part(dir: &Path, part: &str) -> Result<PathBuf, Error> {
    let path = dir.join(part);
    if path.is_dir() {
        return Ok(path);
    }
    Err(Error::Missing { dir: dir.to_owned(), wanted: format!("{part}/, with a folder of images for each class,") })
}

/// Returns the entries of `dir` except for hidden files, sorted.
fn entries(dir: &Path) -> Result<Vec<PathBuf>, Error> {
    let paths: io::Result<Vec<PathBuf>> =
        fs::read_dir(dir).and_then(|found| found.map(|entry| Ok(entry?.path())).collect());
    let mut paths = paths.map_err(|cause| Error::Read { path: dir.to_owned(), cause })?;
    paths.retain(|path| !name(path).starts_with('.'));
    paths.sort();
    Ok(paths)
}

/// Reads the training or the test images. `size` is the path and the size of the first image; without a `side`, all
/// others must have the same size.
fn read(
    dir: &Path,
    which: &str,
    classes: &[String],
    side: Option<Side>,
    size: &mut Option<(PathBuf, (u32, u32))>,
) -> Result<Dataset, Error> {
    let root = part(dir, which)?;
    let (mut images, mut labels) = (Vec::new(), Vec::new());
    for class in entries(&root)? {
        let of = class_name(&class)?;
        let known = classes.iter().position(|known| *known == of);
        let Some(label) = known.filter(|_| class.is_dir()) else {
            return Err(Error::Stray { path: class, wanted: "a folder named after a class in train/" });
        };
        let files = entries(&class)?;
        if files.is_empty() {
            return Err(Error::Missing { dir: class, wanted: "a .png or .jpg image".into() });
        }
        let image = |path: &PathBuf| match side {
            Some(side) => decode(path).map(|image| square(&image, side)),
            None => decode(path),
        };
        let decoded: Vec<_> = files.par_iter().map(image).collect();
        for (path, image) in files.into_iter().zip(decoded) {
            let image = image?;
            let found = image.dimensions();
            let (first, expected) = size.get_or_insert_with(|| (path.clone(), found));
            if found != *expected {
                return Err(Error::ImageSize { path, found, expected: *expected, first: first.clone() });
            }
            images.extend((0..3).flat_map(|channel| image.pixels().map(move |pixel| pixel[channel])));
            labels.push(label);
        }
    }
    let Some((_, (width, height))) = size.as_ref().filter(|_| !labels.is_empty()) else {
        return Err(Error::Missing { dir: root, wanted: "a folder of images".into() });
    };
    Ok(Dataset { shape: [3, *height as usize, *width as usize], classes: classes.to_vec(), images, labels })
}

fn decode(path: &Path) -> Result<RgbImage, Error> {
    let extension = path.extension().unwrap_or_default().to_ascii_lowercase();
    if !["png", "jpg", "jpeg"].iter().any(|known| extension == *known) {
        return Err(Error::Stray { path: path.to_owned(), wanted: "a .png, .jpg or .jpeg image" });
    }
    let bytes = read_file(path)?;
    let corrupt = |offset: u64, expected: &str, found: String| Error::Corrupt {
        file: path.display().to_string(),
        offset,
        expected: expected.to_owned(),
        found,
    };
    let mut cursor = Cursor::new(bytes.as_slice());
    let image = upright(&mut cursor)
        .map_err(|error| corrupt(cursor.position(), "a complete PNG or JPEG image", error.to_string()))?;

    // The JPEG decoder fills the missing part of a truncated file with grey.
    if bytes.starts_with(&[0xff, 0xd8]) && !has_end(&bytes) {
        return Err(corrupt(bytes.len() as u64, "the end marker of a JPEG, ff d9", "the end of the file".into()));
    }
    Ok(rgb(image))
}

/// Returns whether a JPEG has an end marker after the start of its first scan. The marker cannot occur within the data of
/// a scan. The segments before it are skipped, since a thumbnail in them has markers of its own, and what follows the
/// marker does not matter: phones append videos.
fn has_end(jpeg: &[u8]) -> bool {
    let mut at = 2;
    loop {
        match jpeg.get(at..at + 4) {
            Some([0xff, 0xda, ..]) => return jpeg[at..].windows(2).any(|pair| pair == [0xff, 0xd9]),
            // Any number of such bytes may precede a marker, and decoders skip other bytes between segments.
            Some([0xff, 0xff | 0x00, ..]) => at += 1,
            Some([0xff, _, high, low]) => at += 2 + usize::from(u16::from_be_bytes([*high, *low])),
            Some(_) => at += 1,
            None => return false,
        }
    }
}

/// Reads the image of a file, rotated and mirrored as its EXIF data say.
fn upright(file: &mut Cursor<&[u8]>) -> ImageResult<DynamicImage> {
    let mut decoder = ImageReader::new(file).with_guessed_format()?.into_decoder()?;
    Limits::default().reserve(decoder.total_bytes())?;
    let orientation = decoder.orientation()?;
    let mut image = DynamicImage::from_decoder(decoder)?;
    image.apply_orientation(orientation);
    Ok(image)
}

/// Converts an image to RGB, with transparent parts blended over white.
fn rgb(image: DynamicImage) -> RgbImage {
    if !image.color().has_alpha() {
        return image.into_rgb8();
    }
    let mut white = RgbaImage::from_pixel(image.width(), image.height(), Rgba([255; 4]));
    imageops::overlay(&mut white, &image.into_rgba8(), 0, 0);
    DynamicImage::from(white).into_rgb8()
}

/// Crops the largest centred square of an image and scales it to this side with a triangle filter: bilinear
/// interpolation where the image grows, and weighted means where it shrinks.
fn square(image: &RgbImage, side: Side) -> RgbImage {
    let (width, height) = image.dimensions();
    let whole = width.min(height);
    let centre = imageops::crop_imm(image, (width - whole) / 2, (height - whole) / 2, whole, whole);
    imageops::resize(&*centre, side.get(), side.get(), FilterType::Triangle)
}
