//! Perplexity, KL to the full-precision model and top-1 agreement of several files on several
//! texts, as a table for docs/lab.
//!
//!     cargo run --release -p halfstep --example quality -- \
//!         <tokens> <full-precision model> <text,text> <model> ...
//!
//! Sequences of 512; the full-precision model runs once for all. Bits are those of the stored block
//! linears, scales, zero points and low-rank factors included.

use halfstep::config::options::EvaluateConfig;
use halfstep::nearest::bits_per_weight;
use halfstep::run::evaluate::EvaluationRun;
use halfstep::run::load;
use std::path::Path;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [tokens, full, texts, files @ ..] = args.as_slice() else {
        return Err("usage: quality <tokens> <full-precision model> <text,text> <model> ...".into());
    };
    let reference = load(full)?;
    let models = files.iter().map(|file| load(file)).collect::<Result<Vec<_>, _>>()?;
    println!(
        "| model | file bytes | bits | text | KL | perplexity | top-1 | predictions \
         |\n|---|---|---|---|---|---|---|---|"
    );
    for text in texts.split(',') {
        let config = EvaluateConfig {
            data: Some(text.into()),
            tokens: tokens.parse()?,
            sequence_length: 512,
            ..EvaluateConfig::default()
        };
        let measured: Vec<_> = models.iter().map(|model| &***model).collect();
        let mut run = EvaluationRun::new(&measured, Some(&**reference), &config)?;
        while run.step()? {}
        for ((path, model), record) in files.iter().zip(&measured).zip(run.finish()) {
            let (name, bytes) = (
                Path::new(path).file_name().unwrap_or_default().display(),
                std::fs::metadata(path)?.len(),
            );
            let (kl, top1) =
                (record.kl.unwrap_or(f64::NAN), record.top1_agreement.unwrap_or(f64::NAN));
            let text = Path::new(text).file_stem().unwrap_or_default().display();
            println!(
                "| {name} | {bytes} | {:.3} | {text} | {kl:.4} | {:.3} | {top1:.4} | {} |",
                bits_per_weight(model),
                record.perplexity,
                record.predictions
            );
        }
    }
    Ok(())
}
