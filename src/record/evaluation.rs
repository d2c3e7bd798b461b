use crate::artifact::Digest;
use crate::bounded::Share;
use serde::{Deserialize, Serialize};

/// How well a network classifies test images: what `eval.json` holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// For people.
    pub model: String,
    /// Of the file that was evaluated: the weights, or the ONNX file.
    pub digest: Digest,
    pub device: String,
    /// A runtime of the device, or `libtorch`.
    pub runtime: String,
    /// Absent for libtorch, which belongs to the program.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runtime_version: Option<String>,
    /// ONNX Runtime's execution providers, the preferred one first; none for others.
    pub providers: Vec<String>,
    /// The data set's name.
    pub data: String,
    pub data_digest: String,
    /// Test images that were evaluated: the first ones.
    pub images: usize,
    /// Test images of the data set.
    pub test_images: usize,
    pub metrics: Metrics,
}

/// What an evaluation found out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Metrics {
    /// Share of the images whose class has the largest logit. Of equal logits, that of the first class counts as larger.
    pub top1: Share,
    /// Share of the images whose class has one of the five largest logits; absent where there are no more classes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub top5: Option<Share>,
    /// The mean, in nats.
    pub cross_entropy: f64,
    /// Expected calibration error over 15 bins of equal width (Guo et al. 2017, arXiv 1706.04599): by how much the
    /// largest probability differs from the share of the images that are classified right, on average.
    pub calibration_error: Share,
    /// By logit.
    pub classes: Vec<OfClass>,
    pub confusion: Confusion,
}

/// How well the images of one class are classified.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OfClass {
    pub class: String,
    pub images: usize,
    /// Share of these images that are classified right; `None` where there are none.
    pub accuracy: Option<Share>,
}

/// Numbers of images, by their class (rows) and by the class that they were taken for (columns).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<Vec<u32>>")]
pub struct Confusion(Vec<Vec<u32>>);

impl Evaluation {
    /// The runtime with its version, and the device.
    pub fn place(&self) -> String {
        let version = self.runtime_version.iter().map(|version| format!(" {version}")).collect::<String>();
        format!("{}{version} on {}", self.runtime, self.device)
    }

    /// The images, as `all 2000` or `the first 100 of 2000`.
    pub fn extent(&self) -> String {
        let Evaluation { images, test_images, .. } = self;
        if images == test_images { format!("all {images}") } else { format!("the first {images} of {test_images}") }
    }

    /// What was evaluated where.
    pub fn describe(&self) -> String {
        format!("{} test images of {}, in {}", self.extent(), self.data, self.place())
    }
}

impl Metrics {
    /// The class with the lowest accuracy.
    pub fn worst(&self) -> Option<(&str, Share)> {
        let known = self.classes.iter().filter_map(|of| Some((of.class.as_str(), of.accuracy?)));
        known.min_by(|a, b| a.1.get().total_cmp(&b.1.get()))
    }
}

impl Confusion {
    /// Without images.
    pub fn new(classes: usize) -> Confusion {
        Confusion(vec![vec![0; classes]; classes])
    }

    /// Counts an image.
    ///
    /// # Panics
    /// Where there is no such class.
    pub fn add(&mut self, class: usize, taken_for: usize) {
        self.0[class][taken_for] += 1;
    }

    pub fn rows(&self) -> &[Vec<u32>] {
        &self.0
    }

    /// The images of a class.
    ///
    /// # Panics
    /// Where there is no such class.
    pub fn images(&self, class: usize) -> u64 {
        self.0[class].iter().copied().map(u64::from).sum()
    }

    /// The images that were taken for what they are: the trace.
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
