use crate::artifact::Digest;
use crate::bounded::Share;
use serde::{Deserialize, Serialize};

/// How well a network classifies test images: the content of `eval.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// A human-readable name.
    pub model: String,
    /// Digest of the evaluated file, which holds the weights or is the ONNX file.
    pub digest: Digest,
    pub device: String,
    /// A runtime of the device, or `libtorch`.
    pub runtime: String,
    /// Absent for libtorch, which is part of the program.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runtime_version: Option<String>,
    /// ONNX Runtime's execution providers, the preferred one first. Empty for other runtimes.
    pub providers: Vec<String>,
    /// The data set's name.
    pub data: String,
    pub data_digest: Digest,
    /// The number of evaluated test images, which are spread evenly over the data set.
    pub images: usize,
    /// The number of test images in the data set.
    pub test_images: usize,
    pub metrics: Metrics,
}

/// The results of an evaluation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Metrics {
    /// Share of the images whose class has the largest logit. Of equal logits, the first counts as the largest.
    pub top1: Share,
    /// Share of the images whose class has one of the five largest logits. Absent if there are no more than five
    /// classes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub top5: Option<Share>,
    /// Mean cross-entropy, in nats.
    pub cross_entropy: f64,
    /// Expected calibration error over 15 bins of equal width (Guo et al. 2017, arXiv 1706.04599): the average
    /// difference between the largest probability and the share of correctly classified images.
    pub calibration_error: Share,
    /// Results by class, in the order of the logits.
    pub classes: Vec<OfClass>,
    pub confusion: Confusion,
}

/// How well the images of one class are classified.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OfClass {
    pub class: String,
    pub images: usize,
    /// Share of these images that are classified correctly. `None` if there are none.
    pub accuracy: Option<Share>,
}

/// Numbers of images by their true class (rows) and their predicted class (columns).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<Vec<u32>>")]
pub struct Confusion(Vec<Vec<u32>>);

impl Evaluation {
    /// Returns the runtime with its version, and the device.
    pub fn place(&self) -> String {
        let version = self.runtime_version.iter().map(|version| format!(" {version}")).collect::<String>();
        format!("{}{version} on {}", self.runtime, self.device)
    }

    /// Describes the images as `all 2000` or `100 of 2000`.
    pub fn extent(&self) -> String {
        let Evaluation { images, test_images, .. } = self;
        if images == test_images { format!("all {images}") } else { format!("{images} of {test_images}") }
    }

    /// Describes what was evaluated, and where.
    pub fn describe(&self) -> String {
        format!("{} test images of {}, in {}", self.extent(), self.data, self.place())
    }
}

impl Metrics {
    /// Returns the class with the lowest accuracy.
    pub fn worst(&self) -> Option<(&str, Share)> {
        let known = self.classes.iter().filter_map(|of| Some((of.class.as_str(), of.accuracy?)));
        known.min_by(|a, b| a.1.get().total_cmp(&b.1.get()))
    }
}

impl Confusion {
    /// Creates a matrix without images.
    pub fn new(classes: usize) -> Confusion {
        Confusion(vec![vec![0; classes]; classes])
    }

    /// Counts an image.
    ///
    /// # Panics
    /// Panics if there is no such class.
    pub fn add(&mut self, class: usize, taken_for: usize) {
        self.0[class][taken_for] += 1;
    }

    pub fn rows(&self) -> &[Vec<u32>] {
        &self.0
    }

    /// Returns the number of images of a class.
    ///
    /// # Panics
    /// Panics if there is no such class.
    pub fn images(&self, class: usize) -> u64 {
        self.0[class].iter().copied().map(u64::from).sum()
    }

    /// Returns the number of correctly classified images: the trace.
    pub fn right(&self) -> u64 {
        self.0.iter().enumerate().map(|(class, row)| u64::from(row[class])).sum()
    }
}

impl TryFrom<Vec<Vec<u32>>> for Confusion {
    type Error = &'static str;

    fn try_from(rows: Vec<Vec<u32>>) -> Result<Confusion, &'static str> {
        match rows.iter().all(|row| row.len() == rows.len()) && !rows.is_empty() {
            true => Ok(Confusion(rows)),
            false => Err("a confusion matrix has a row and a column for each class"),
        }
    }
}
