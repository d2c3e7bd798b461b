//! How well trained networks classify the test images of a data set.

mod tally;

use super::models::{all_trained, exported};
use super::{BoardSettings, RunError};
use crate::artifact::{self, Digest};
use crate::data::{Batch, Batches, Data, Normalisation};
use crate::device::{Device, Source};
use crate::progress;
use crate::record::{Evaluation, Exported, INTERFACE, Interface, ModelDir, RunDir, Trained, TrainedOn};
use crate::report;
use nas_exporters::onnx;
use nas_probe::{Runtime, TensorData};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use tally::Tally;

/// The most numbers in a batch: an input of 512 MiB.
const LARGEST_BATCH: usize = 1 << 27;

/// What to evaluate, and where.
#[derive(Clone, Debug)]
pub struct Eval {
    /// Folder of the run, whose networks are evaluated.
    pub run: PathBuf,
    /// Use only this many test images, spread evenly over all of them, since those of a folder are sorted by class.
    pub images: Option<NonZeroUsize>,
    /// Where ONNX files are run. `None` to run the weights in libtorch on this machine.
    pub on: Option<OnDevice>,
}

/// An evaluation of ONNX files.
#[derive(Clone, Debug)]
pub struct OnDevice {
    /// An ONNX file in place of the run's exported models. It has one input, images, and its first output is logits.
    /// The run's `data.json` says how to interpret them if the file itself does not.
    pub onnx: Option<PathBuf>,
    /// A name that `nas devices` lists, or a TOML file.
    pub device: String,
    /// `None` for the first runtime of the device.
    pub runtime: Option<Runtime>,
    pub board: BoardSettings,
}

/// An evaluation, and the files to which it was written.
#[derive(Clone, Debug)]
pub struct Evaluated {
    pub evaluation: Evaluation,
    pub path: PathBuf,
    pub confusion: PathBuf,
}

/// Evaluates the networks of a run, or an ONNX file, on the test images of `data`. Writes `eval.json` and `confusion.svg`
/// beside each network, or `NAME.eval.json` and `NAME.confusion.svg` beside `NAME.onnx`.
///
/// # Errors
/// Fails if there is no network, if one does not fit the data, or if the device fails. All networks are checked before
/// the first is run.
pub fn eval(settings: &Eval, data: &Data) -> Result<Vec<Evaluated>, RunError> {
    let count = settings.images.map_or(data.test.len(), |images| data.test.len().min(images.get()));
    let test = Test { data, digest: data.digest(), indices: spread(data.test.len(), count) };
    match &settings.on {
        Some(on) => on_device(&RunDir(settings.run.clone()), on, &test),
        None => in_libtorch(&RunDir(settings.run.clone()), &test),
    }
}

/// Returns `count` of the numbers below `len`, spread evenly.
fn spread(len: usize, count: usize) -> Vec<usize> {
    (0..count).map(|i| i * len / count).collect()
}

/// A network to evaluate.
struct EvalModel {
    name: String,
    /// Digest of its file.
    digest: Digest,
    /// Sizes of its input: images per batch, channels, height, width.
    input: Vec<usize>,
    interface: Interface,
    path: PathBuf,
    confusion: PathBuf,
}

/// What runs the network, as in [`Evaluation`].
struct Backend {
    device: String,
    runtime: String,
    runtime_version: Option<String>,
    providers: Vec<String>,
}

/// The test images that networks are evaluated on.
struct Test<'a> {
    data: &'a Data,
    digest: Digest,
    indices: Vec<usize>,
}

#[cfg(not(feature = "torch"))]
fn in_libtorch(_: &RunDir, _: &Test) -> Result<Vec<Evaluated>, RunError> {
    Err(RunError::NoLibtorch)
}

#[cfg(feature = "torch")]
fn in_libtorch(run: &RunDir, test: &Test) -> Result<Vec<Evaluated>, RunError> {
    use crate::train::{Net, Placement, TrainError, fit::read_weights};
    use nas_exporters::Shape;
    /// The most images per batch in libtorch.
    const BATCH: usize = 64;

    let mut models = vec![];
    for (dir, trained) in all_trained(run)? {
        let graph = trained.network.graph();
        let Shape { channels, height, width } = graph.input_shape();
        let images = (LARGEST_BATCH / (channels * height * width)).clamp(1, BATCH);
        let input = vec![images, channels, height, width];
        let model = EvalModel::own(&dir, &trained, trained.on.weights.clone(), input);
        test.check(&model)?;
        let net = Net::new(graph, Placement::default());
        net.load(&read_weights(&dir.weights())?).map_err(TrainError::from)?;
        models.push((model, net));
    }
    let backend =
        Backend { device: "host".into(), runtime: "libtorch".into(), runtime_version: None, providers: vec![] };
    let evaluate = |(model, net): &(EvalModel, Net)| {
        test.evaluate(model, &backend, |batches, take| {
            for batch in batches {
                take(&net.logits(&batch), batch.labels.len())?;
            }
            Ok(())
        })
    };
    models.iter().map(evaluate).collect()
}

fn on_device(run: &RunDir, on: &OnDevice, test: &Test) -> Result<Vec<Evaluated>, RunError> {
    let device = Device::load(&on.device)?;
    let no_runtime = || RunError::NoRuntime { device: device.name.clone() };
    let runtime = on.runtime.or_else(|| device.runtimes.first().copied()).ok_or_else(no_runtime)?;
    let files = match &on.onnx {
        Some(path) => vec![of_file(run, path)?],
        None => of_run(run)?,
    };
    files.iter().try_for_each(|(model, _)| test.check(model))?;
    let mut sessions = on.board.open(&device, &[runtime])?;
    let [session] = sessions.as_mut_slice() else { return Err(RunError::ManyBoards) };
    let info = session.require(runtime)?;
    let backend = Backend {
        device: device.name.clone(),
        runtime: runtime.to_string(),
        runtime_version: Some(info.version.clone()),
        providers: info.providers.clone(),
    };
    let sources: Vec<(String, Source)> =
        files.iter().map(|(model, file)| (model.name.clone(), Source::File(file.onnx.clone()))).collect();
    let loaded = session.place(&sources)?;
    let mut evaluate = |((model, file), loaded): (&(EvalModel, Exported), _)| {
        test.evaluate(model, &backend, |batches, take| {
            let input = |mut values: Vec<f32>| {
                // An incomplete batch is padded with zeros.
                values.resize(model.input.iter().product(), 0.0);
                TensorData { shape: model.input.clone(), values }
            };
            session.infer_each(loaded, runtime, batches.map(|batch| input(batch.images)), |outputs| {
                let logits = outputs.first().map(|output| output.values.as_slice()).unwrap_or_default();
                take(logits, file.model.images())
            })
        })
    };
    files.iter().zip(&loaded).map(&mut evaluate).collect()
}

/// Returns the exported networks of a run.
fn of_run(run: &RunDir) -> Result<Vec<(EvalModel, Exported)>, RunError> {
    let file = |(dir, trained): (ModelDir, Trained)| {
        let file = exported(run, &dir, &trained)?;
        Ok((EvalModel::own(&dir, &trained, file.digest.clone(), file.model.input.clone()), file))
    };
    all_trained(run)?.into_iter().map(file).collect()
}

/// Reads any ONNX file.
fn of_file(run: &RunDir, path: &Path) -> Result<(EvalModel, Exported), RunError> {
    if !path.is_file() {
        return Err(RunError::NoFile(path.into()));
    }
    let onnx = artifact::read(path, "nas export")?;
    let unfit = |reason| RunError::Model { path: path.into(), reason };
    let inspected = onnx::inspect(&onnx).map_err(unfit)?;
    let name = path.file_stem().unwrap_or_default().display().to_string();
    let interface = match inspected.metadata.get(INTERFACE) {
        Some(text) => {
            let damaged = |e| RunError::Interface { path: path.into(), reason: format!("{e}") };
            serde_json::from_str(text).map_err(damaged)?
        }
        None => match run.found().trained_on() {
            on if on.is_file() => artifact::read_json::<TrainedOn>(&on, "nas train")?.interface(),
            on => return Err(RunError::NoInterface { path: path.into(), on }),
        },
    };
    let digest = Digest::of_bytes(&onnx);
    let input = inspected.input.clone();
    let [eval, confusion] = ["eval.json", "confusion.svg"].map(|extension| path.with_extension(extension));
    let model = EvalModel { name, digest: digest.clone(), input, interface, path: eval, confusion };
    Ok((model, Exported { onnx, digest, model: inspected }))
}

impl EvalModel {
    /// Creates a network of the run, in its folder. `digest` is that of the file to evaluate.
    fn own(dir: &ModelDir, trained: &Trained, digest: Digest, input: Vec<usize>) -> EvalModel {
        let (name, interface) = (trained.network.name(), trained.on.interface());
        EvalModel { name, digest, input, interface, path: dir.eval(), confusion: dir.confusion() }
    }
}

/// Takes logits, and the number of images that they are for.
type Take<'t> = dyn FnMut(&[f32], usize) -> Result<(), RunError> + 't;

impl Test<'_> {
    /// Checks that a network fits the data.
    ///
    /// # Errors
    /// Fails if the network was made for other images or classes, or if its batches are too large.
    fn check(&self, EvalModel { name, input, interface, .. }: &EvalModel) -> Result<(), RunError> {
        let unfit = |what: String| Err(RunError::Unfit { model: name.clone(), what });
        let shown = |sizes: &[usize]| sizes.iter().map(usize::to_string).collect::<Vec<_>>().join("x");
        let (shape, classes) = (self.data.test.shape, &self.data.test.classes);
        let (images, image) = input.split_first().unwrap_or((&1, &[]));
        if *image != shape {
            return unfit(format!("takes images of {}, and the data have images of {}", shown(image), shown(&shape)));
        }
        if images.checked_mul(shape.iter().product()).is_none_or(|numbers| numbers > LARGEST_BATCH) {
            return unfit(format!("takes {images} images at once, which are too many"));
        }
        if interface.classes.len() != classes.len() {
            return unfit(format!("has {} classes, and the data have {}", interface.classes.len(), classes.len()));
        }
        let mut names = interface.classes.iter().zip(classes).enumerate();
        if let Some((i, (own, other))) = names.find(|(_, (own, other))| own != other) {
            return unfit(format!("calls class {i} `{own}`, and the data call it `{other}`"));
        }
        let Normalisation { mean, std } = &interface.normalisation;
        let can_be = |values: &[f32]| values.len() == shape[0] && values.iter().all(|value| value.is_finite());
        if !can_be(mean) || !can_be(std) || std.iter().any(|std| *std <= 0.0) {
            return unfit(format!("has no mean and deviation for each of {} channels", shape[0]));
        }
        Ok(())
    }

    /// Evaluates a network that passed [`Test::check`], and writes its files. `score` receives batches and passes on
    /// their logits.
    fn evaluate(
        &self,
        model: &EvalModel,
        backend: &Backend,
        score: impl FnOnce(&mut dyn Iterator<Item = Batch>, &mut Take) -> Result<(), RunError>,
    ) -> Result<Evaluated, RunError> {
        let EvalModel { name, digest, input, interface, path, confusion } = model;
        let (test, classes) = (&self.data.test, interface.classes.len());
        let mut tally = Tally::new(classes);
        let mut left = self.indices.iter().copied();
        let bar = progress::bar("eval", name, self.indices.len());
        let (normalisation, size) = (&interface.normalisation, input.first().copied().and_then(NonZeroUsize::new));
        let size = size.unwrap_or(NonZeroUsize::MIN);
        let batches = Batches { dataset: test, indices: &self.indices, normalisation, size, balanced: false };
        score(&mut batches.in_order(), &mut |logits, images| {
            if logits.len() != images * classes {
                let what = format!("gives {} logits for {images} images of {classes} classes", logits.len());
                return Err(RunError::Unfit { model: name.clone(), what });
            }
            for (logits, image) in logits.chunks_exact(classes).zip(&mut left) {
                if logits.iter().any(|logit| !logit.is_finite()) {
                    return Err(RunError::NotFinite { model: name.clone(), runtime: backend.runtime.clone(), image });
                }
                tally.add(logits, test.label(image));
                bar.inc(1);
            }
            Ok(())
        })?;
        bar.finish_and_clear();
        let Backend { device, runtime, runtime_version, providers } = backend;
        let evaluation = Evaluation {
            model: name.clone(),
            digest: digest.clone(),
            device: device.clone(),
            runtime: runtime.clone(),
            runtime_version: runtime_version.clone(),
            providers: providers.clone(),
            data: self.data.name.clone(),
            data_digest: self.digest.clone(),
            images: self.indices.len(),
            test_images: test.len(),
            metrics: tally.metrics(&interface.classes),
        };
        report::confusion(confusion, &evaluation)?;
        artifact::write_json(path, &evaluation)?;
        Ok(Evaluated { evaluation, path: path.clone(), confusion: confusion.clone() })
    }
}
