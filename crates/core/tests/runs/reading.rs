//! How texts become sequences: begin tokens, special tokens that are spelt out, conversations and
//! their answers; from a model whose tokenizer adds a begin token to evaluation, training,
//! checkpoints and the metadata of files.

use halfstep::cancel::Cancel;
use halfstep::config::options::{EvaluateConfig, RunConfig, Switch};
use halfstep::data::self_generated::{Settings, generate};
use halfstep::data::{Reading, Text, Windows};
use halfstep::event::{EvaluationRecord, Event};
use halfstep::host::Host;
use halfstep::recipe::TrainConfig;
use halfstep::recipe::block::BlockOptions;
use halfstep::recipes::RecipeConfig;
use halfstep::recipes::apiq::ApiqConfig;
use halfstep::recipes::silq::SilqConfig;
use halfstep::run::{evaluate, load, plan, quantize};
use halfstep::target::TargetId;
use halfstep_formats::tokenizer::TokenKind;
use halfstep_formats::{Model, Tokenizer};
use halfstep_kernels::Pool;
use halfstep_runtime::network::Logits;
use halfstep_runtime::{Arithmetic, Cache, Network};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

/// A text that the tiny tokenizer cuts into some hundred tokens.
const TEXT: &str = "The gardener plants beans in spring. The river runs past the old mill, and the \
                    miller counts his sacks. Numbers: 12, 345, 6789. It's what we've done; they'll \
                    see. A new day begins, and nobody knows what the weather will be like.";
const LENGTH: usize = 16;
/// Of sums of logarithms in f32 and in f64.
const TOLERANCE: f64 = 1e-5;

/// The tiny Llama, whose tokenizer adds <bos> before a text.
fn model() -> Model {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../test/golden/arch/llama");
    let model = Model::clone(&load(&folder.display().to_string()).expect("a model"));
    assert!(tokenizer(&model).vocabulary.add_bos);
    model
}

/// The same with another vocabulary.
fn with_vocabulary(change: impl FnOnce(&mut halfstep_formats::tokenizer::Vocabulary)) -> Model {
    let mut model = model();
    let mut vocabulary = (*tokenizer(&model).vocabulary).clone();
    change(&mut vocabulary);
    model.tokenizer = Some(Tokenizer::new(vocabulary).expect("a tokenizer"));
    model
}

/// The same with the special tokens of ChatML and its template.
fn chat_model(chat_template: &str) -> Model {
    let mut model = with_vocabulary(|v| {
        for (id, token) in [(288, "<|im_start|>"), (289, "<|im_end|>")] {
            v.tokens[id] = token.into();
            v.kinds[id] = TokenKind::Control;
        }
    });
    model.chat_template = Some(chat_template.into());
    model
}

fn tokenizer(model: &Model) -> &Tokenizer {
    model.tokenizer.as_ref().expect("a tokenizer")
}

fn bos(model: &Model) -> u32 {
    tokenizer(model).vocabulary.bos.expect("a begin token")
}

/// Templates of real models.
fn templates() -> Vec<&'static str> {
    include_str!("../../../formats/tests/text/template/templates.txt").split("\n=====\n").collect()
}

fn scratch(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("reading-{name}"));
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).expect("a scratch folder");
    folder
}

/// The path of a file with this content, in a folder of its own.
fn file(name: &str, content: &str) -> String {
    static NUMBER: AtomicUsize = AtomicUsize::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let path = scratch(&format!("file-{number}")).join(name);
    std::fs::write(&path, content).expect("written");
    path.display().to_string()
}

/// Conversations in JSON Lines: contents in turn of user and assistant.
fn conversations(all: &[&[&str]]) -> String {
    let line = |contents: &&[&str]| {
        let message = |(i, content): (usize, &&str)| {
            let role = ["user", "assistant"][i % 2];
            serde_json::json!({ "role": role, "content": content })
        };
        let messages: Vec<_> = contents.iter().enumerate().map(message).collect();
        serde_json::json!({ "messages": messages }).to_string()
    };
    all.iter().map(line).collect::<Vec<_>>().join("\n")
}

fn evaluated(model: &Model, config: EvaluateConfig) -> halfstep::Result<EvaluationRecord> {
    let config = EvaluateConfig { sequence_length: LENGTH, threads: 1, ..config };
    evaluate(model, None, &config, &mut |_, _| {}, &Cancel::default())
}

fn of_text(text: &str, bos: Switch) -> EvaluateConfig {
    EvaluateConfig { text: Some(text.into()), bos, ..EvaluateConfig::default() }
}

/// The mean negative log-likelihood, by the definition, of what follows the first token of each
/// sequence.
fn mean_nll(model: &Model, sequences: &[Vec<u32>]) -> (f64, usize) {
    let network = Network::new(model, Arithmetic::Float, Pool::new(1)).expect("a network");
    let (mut sum, mut count) = (0.0, 0);
    for sequence in sequences {
        let logits =
            network.forward(sequence, &mut Cache::new(&network), Logits::All).expect("logits");
        for (row, &next) in logits.chunks(model.architecture.vocab_size).zip(&sequence[1..]) {
            let total: f64 = row.iter().map(|&l| f64::from(l).exp()).sum();
            sum += total.ln() - f64::from(row[next as usize]);
            count += 1;
        }
    }
    (sum / count as f64, count)
}

#[test]
fn an_evaluation_is_that_of_windows_with_the_begin_token_which_is_not_scored() {
    let model = model();
    let ids = tokenizer(&model).encode(TEXT, false).expect("ids");
    let begun = |ids: &[u32]| [&[bos(&model)][..], ids].concat();
    let by_hand: Vec<Vec<u32>> = ids.chunks(LENGTH - 1).map(begun).collect();
    let (nll, count) = mean_nll(&model, &by_hand);
    assert_eq!(count, ids.len(), "every token of the text is predicted");
    let auto = evaluated(&model, of_text(TEXT, Switch::Auto)).expect("a record");
    assert_eq!(auto.predictions, count);
    assert!((auto.mean_nll - nll).abs() < TOLERANCE, "{} {nll}", auto.mean_nll);
    let reading = auto.reading.clone().expect("something to say");
    assert_eq!(reading.begin_token.as_deref(), Some("<bos>"));
    assert_eq!(reading.notes[0], "begin token: <bos> before each window (auto)");
    assert_eq!(reading.notes[1], "special tokens: read as plain text (auto)");
    assert_eq!(reading.notes[2], "chat: none, a plain text");
    assert_eq!(reading.notes.len(), 3);
    let on = evaluated(&model, of_text(TEXT, Switch::On)).expect("a record");
    assert_eq!((on.mean_nll, on.predictions), (auto.mean_nll, auto.predictions));

    let plain: Vec<Vec<u32>> = ids.chunks(LENGTH).map(<[u32]>::to_vec).collect();
    let (nll, count) = mean_nll(&model, &plain);
    let off = evaluated(&model, of_text(TEXT, Switch::Off)).expect("a record");
    assert_eq!(off.predictions, count);
    assert!((off.mean_nll - nll).abs() < TOLERANCE, "{} {nll}", off.mean_nll);
    assert_ne!(off.mean_nll, auto.mean_nll);
    assert_eq!(off.reading.expect("something to say").notes[0], "begin token: none (off)");
}

#[test]
fn a_tokenizer_that_adds_no_begin_token_has_one_only_where_it_is_asked_for() {
    let silent = with_vocabulary(|v| v.add_bos = false);
    let auto = evaluated(&silent, of_text(TEXT, Switch::Auto)).expect("a record");
    let off = evaluated(&silent, of_text(TEXT, Switch::Off)).expect("a record");
    assert_eq!(auto.mean_nll, off.mean_nll);
    let [auto, off] = [auto, off].map(|record| record.reading.expect("always").notes[0].clone());
    assert_eq!(auto, "begin token: none, the tokenizer adds none (auto)");
    assert_eq!(off, "begin token: none, the tokenizer adds none (off)");
    let on = evaluated(&silent, of_text(TEXT, Switch::On)).expect("a record");
    let adding = evaluated(&model(), of_text(TEXT, Switch::Auto)).expect("a record");
    assert_eq!(on.mean_nll, adding.mean_nll);
    let notes = on.reading.expect("something to say").notes;
    assert_eq!(notes[0], "begin token: <bos> before each window (on)");

    let none = with_vocabulary(|v| (v.bos, v.add_bos) = (None, false));
    let error = evaluated(&none, of_text(TEXT, Switch::On)).expect_err("there is none");
    assert_eq!(error.code(), "ERR_CONFIG");
    let text = error.to_string();
    assert!(text.starts_with("bos: ") && text.contains("no begin token"), "{text}");
    let run = RunConfig { bos: Switch::On, ..RunConfig::default() };
    let error = quantize(&none, &silq(1), &run, &mut |_| {}, &Cancel::default());
    assert!(error.expect_err("there is none").to_string().starts_with("bos: "));
}

#[test]
fn a_text_of_documents_is_that_of_their_texts() {
    let model = model();
    let tokens = |name: &str, content: &str| {
        let text = Text::read(Some(&file(name, content)), None, 0).expect(name).expect("a text");
        text.tokens(&model, 1).expect("ids")
    };
    let plain = tokens("a.txt", "one\n\ntwo");
    let lines = "{\"text\": \"one\"}\n{\"text\": \"two\"}\n";
    for (name, content) in [
        ("b.txt", "\u{feff}one\n\ntwo".to_owned()),
        ("a.jsonl", lines.to_owned()),
        ("b.jsonl", format!("\u{feff}{lines}")),
        ("a.ndjson", lines.to_owned()),
        ("a.json", "[{\"text\": \"one\"}, {\"text\": \"two\"}]".to_owned()),
    ] {
        assert_eq!(tokens(name, &content), plain, "{name}");
    }
    for refused in
        [Text::read(Some(&file("c.txt", lines)), None, 0), Text::read(None, Some(lines), 0)]
    {
        let error = refused.err().expect("JSON is no text");
        assert!(error.code() == "ERR_DATA" && error.to_string().contains(".jsonl"), "{error}");
    }
    let utf16 = scratch("utf16").join("a.txt");
    std::fs::write(&utf16, [0xff, 0xfe, b'a', 0]).expect("written");
    let error = Text::read(Some(&utf16.display().to_string()), None, 0).err().expect("not UTF-8");
    assert!(error.to_string().contains("UTF-16"), "{error}");
}

#[test]
fn special_tokens_that_a_text_spells_out_are_tokens_only_where_that_is_asked_for() {
    let model = chat_model(templates()[0]);
    let spelt = "<|im_start|>user\nA new day begins.<|im_end|>\n";
    let read = |special, text: &str| {
        let text = Text::read(None, Some(text), 0).expect("read").expect("a text");
        let text = text.read_as(Reading { special, ..Reading::default() }).expect("read");
        text.tokens(&model, 1).expect("ids")
    };
    let plain = tokenizer(&model).encode(spelt, false).expect("ids");
    let marked = tokenizer(&model).encode(spelt, true).expect("ids");
    assert_eq!((marked[0], marked[1]), (bos(&model), 288));
    assert_eq!(read(Switch::Auto, spelt), plain);
    assert_eq!(read(Switch::Off, spelt), plain);
    assert_eq!(
        read(Switch::On, spelt),
        marked[1..],
        "what the tokenizer adds is no part of a text"
    );
    assert_eq!(read(Switch::On, &format!("<bos>{spelt}")), marked);

    let warnings = |special, text: &str| {
        let text = text.repeat(4);
        let config = EvaluateConfig { special, ..of_text(&text, Switch::Auto) };
        let reading = evaluated(&model, config).expect("a record").reading;
        reading.expect("something to say").warnings
    };
    let [warning] = &warnings(Switch::Auto, spelt)[..] else { panic!("one warning") };
    assert!(
        warning.contains("(8, first <|im_start|>)") && warning.contains("option special"),
        "{warning}"
    );
    assert!(warnings(Switch::Off, spelt).is_empty() && warnings(Switch::On, spelt).is_empty());
    assert!(warnings(Switch::Auto, TEXT).is_empty());
}

#[test]
fn conversations_are_what_the_template_renders_each_with_the_begin_token() {
    let model = chat_model(templates()[0]);
    let path = file("chat.jsonl", &conversations(&[&["Who?", "He."], &["When?", "Now."]]));
    let text = Text::read(Some(&path), None, 0).expect("read").expect("a text");
    let rendered = |user: &str, assistant: &str| {
        format!(
            "<|im_start|>user\n{user}<|im_end|>\n<|im_start|>assistant\n{assistant}<|im_end|>\n"
        )
    };
    let whole = [rendered("Who?", "He."), rendered("When?", "Now.")];
    let ids = whole.map(|text| tokenizer(&model).encode(&text, true).expect("ids"));
    assert!(ids.iter().all(|ids| ids[0] == bos(&model)));
    assert_eq!(text.tokens(&model, 1).expect("ids"), ids.concat());
    let reading = Reading { bos: Switch::Off, ..Reading::default() };
    let without = text.read_as(reading).expect("read").tokens(&model, 1).expect("ids");
    assert_eq!(without, [&ids[0][1..], &ids[1][1..]].concat());

    let error = |model: &Model, reading: Reading, content: &str| {
        let text = Text::read(Some(&file("bad.jsonl", content)), None, 0).expect("read");
        let text = text.expect("a text").read_as(reading).expect("read");
        text.tokens(model, 1).expect_err(content).to_string()
    };
    let two = conversations(&[&["a", "b"], &["c", "d"]]);
    let none = Model { chat_template: None, ..model };
    let text = error(&none, Reading::default(), &two);
    assert!(text.contains("bad.jsonl: line 1: ") && text.contains("no chat template"), "{text}");
    let picky = "{% for m in messages %}{% if m.content == 'c' %}{{ raise_exception('no c') }}\
                 {% endif %}{{ m.content }}{% endfor %}";
    let text = error(&chat_model(picky), Reading::default(), &two);
    assert!(text.contains("bad.jsonl: line 2: ") && text.contains("no c"), "{text}");
}

/// The tokens that are predicted of conversations, as text.
fn answers(template: &str, all: &[&[&str]]) -> halfstep::Result<String> {
    let model = chat_model(template);
    let path = file("answers.jsonl", &conversations(all));
    let reading = Reading { answers_only: true, ..Reading::default() };
    let text = Text::read(Some(&path), None, 0)?.expect("a text").read_as(reading)?;
    let Windows { tokens, targets } = text.windows(&model, 8)?;
    let targets = targets.expect("some are predicted");
    assert_eq!(tokens.len(), targets.len());
    let predicted: Vec<u32> =
        tokens.iter().zip(targets).filter(|(_, target)| *target).map(|(&id, _)| id).collect();
    Ok(tokenizer(&model).decode(&predicted, false).expect("a text"))
}

#[test]
fn only_answers_are_targets_by_the_templates_of_real_models() {
    let two: &[&[&str]] =
        &[&["Who goes there?", "A friend.", "Which?", "Me."], &["When?", "Now, at once."]];
    let chatml = answers(templates()[0], two).expect("targets");
    assert_eq!(chatml, "A friend.<|im_end|>\nMe.<|im_end|>\nNow, at once.<|im_end|>\n");
    let llama3 = "A friend.<|eot_id|>Me.<|eot_id|>Now, at once.<|eot_id|>";
    assert_eq!(answers(templates()[1], two).expect("targets"), llama3);
    assert_eq!(answers(templates()[2], two).expect("targets"), llama3);
}

#[test]
fn a_template_that_renders_an_answer_in_another_way_later_is_refused_with_its_line() {
    let last_only = "{% for m in messages %}{{ '[' + m.role + ']' }}{% if loop.last %}\
                     {{ '(thought)' }}{% endif %}{{ m.content }}{% endfor %}\
                     {% if add_generation_prompt %}{{ '[assistant]' }}{% endif %}";
    let all: &[&[&str]] = &[&["a"], &["a", "b", "c", "d"]];
    let text = answers(last_only, all).expect_err("it cannot be known").to_string();
    assert!(text.contains("answers.jsonl: line 2: ") && text.contains("messages[1]"), "{text}");
    let text = answers(templates()[0], &[&["a"]]).expect_err("no answer").to_string();
    assert!(text.contains("no conversation has an answer"), "{text}");
}

#[test]
fn an_evaluation_of_answers_scores_these_alone() {
    let model = chat_model(templates()[0]);
    let talk: &[&str] = &["Who goes there?", "A friend."];
    let path = file("eval.jsonl", &conversations(&[talk; 6]));
    let config = |answers_only| EvaluateConfig {
        data: Some(path.clone()),
        answers_only,
        ..EvaluateConfig::default()
    };
    let reading = Reading { answers_only: true, ..Reading::default() };
    let text = Text::read(Some(&path), None, 0).expect("read").expect("a text");
    let windows = text.read_as(reading).expect("read").windows(&model, LENGTH).expect("windows");
    let targets = windows.targets.expect("some are predicted");
    let network = Network::new(&model, Arithmetic::Float, Pool::new(1)).expect("a network");
    let (mut sum, mut count) = (0.0, 0);
    for (sequence, targets) in windows.tokens.chunks(LENGTH).zip(targets.chunks(LENGTH)) {
        let logits =
            network.forward(sequence, &mut Cache::new(&network), Logits::All).expect("logits");
        for (m, row) in logits.chunks(model.architecture.vocab_size).enumerate() {
            if m + 1 < sequence.len() && targets[m + 1] {
                let total: f64 = row.iter().map(|&l| f64::from(l).exp()).sum();
                sum += total.ln() - f64::from(row[sequence[m + 1] as usize]);
                count += 1;
            }
        }
    }
    let record = evaluated(&model, config(true)).expect("a record");
    assert_eq!(record.predictions, count);
    assert!((record.mean_nll - sum / count as f64).abs() < TOLERANCE);
    assert!(record.predictions < evaluated(&model, config(false)).expect("a record").predictions);
    let notes = record.reading.expect("something to say").notes;
    assert!(notes.iter().any(|note| note.starts_with("answers only: ")), "{notes:?}");

    let few = EvaluateConfig { tokens: 4, ..config(true) };
    let config = EvaluateConfig { sequence_length: 4, ..few };
    let error = evaluate(&model, None, &config, &mut |_, _| {}, &Cancel::default());
    let text = error.expect_err("no answer is that early").to_string();
    assert!(text.contains("must have a token to predict"), "{text}");

    let config = EvaluateConfig { answers_only: true, ..of_text(TEXT, Switch::Auto) };
    let text = evaluated(&model, config).expect_err("no conversations").to_string();
    assert!(text.starts_with("answersOnly: ") && text.contains("messages"), "{text}");
}

fn silq(steps: usize) -> RecipeConfig {
    let mut recipe = SilqConfig::default();
    recipe.common.target = Some(TargetId::Halfstep);
    recipe.train = TrainConfig {
        tokens: steps * 2 * LENGTH,
        batch: 2,
        sequence_length: LENGTH,
        ..TrainConfig::default()
    };
    RecipeConfig::Silq(recipe)
}

fn trained(
    model: &Model,
    steps: usize,
    run: &RunConfig,
) -> halfstep::Result<(Model, Vec<f64>, Vec<String>)> {
    let (mut losses, mut lines) = (vec![], vec![]);
    let mut hear = |event| match event {
        Event::Step { loss, .. } => losses.push(loss),
        Event::Phase { name, detail } if name == "data" => lines.push(detail),
        _ => {}
    };
    let run = RunConfig { threads: 1, ..run.clone() };
    let (small, _) = quantize(model, &silq(steps), &run, &mut hear, &Cancel::default())?;
    Ok((small, losses, lines))
}

#[test]
fn training_reads_windows_with_the_begin_token_and_the_file_says_so() {
    let model = model();
    let run = |text: &str, bos| RunConfig { text: Some(text.into()), bos, ..RunConfig::default() };
    let text = TEXT.repeat(3);
    let (auto, losses, lines) = trained(&model, 4, &run(&text, Switch::Auto)).expect("trained");
    assert_eq!(lines[0], "begin token: <bos> before each window (auto)");
    assert_eq!(lines.len(), 3);
    assert_eq!(auto.provenance["bos"], "on: <bos>");
    assert_eq!((&*auto.provenance["special"], &*auto.provenance["chat"]), ("off", "off"));
    // The same windows, spelt out in a text that is read as it is.
    let ids = tokenizer(&model).encode(&text, false).expect("ids");
    let silent = with_vocabulary(|v| v.add_bos = false);
    let spelt: Vec<String> = ids
        .chunks(LENGTH - 1)
        .filter(|chunk| chunk.len() == LENGTH - 1)
        .map(|chunk| format!("<bos>{}", tokenizer(&model).decode(chunk, false).expect("a text")))
        .collect();
    let by_hand = RunConfig { special: Switch::On, ..run(&spelt.concat(), Switch::Auto) };
    let windows = Text::read(None, by_hand.text.as_deref(), 0).expect("read").expect("a text");
    let reading = Reading { special: Switch::On, ..Reading::default() };
    let windows = windows.read_as(reading).expect("read").windows(&silent, LENGTH).expect("cut");
    let own = Text::read(None, Some(&text), 0).expect("read").expect("a text");
    let own = own.windows(&model, LENGTH).expect("cut");
    let whole = own.tokens.len() / LENGTH * LENGTH;
    assert_eq!(windows.tokens[..whole], own.tokens[..whole], "the tokenizer splits them alike");
    let (small, same, _) = trained(&silent, 4, &by_hand).expect("trained");
    assert_eq!(same, losses);
    let values = |model: &Model| -> Vec<Vec<f32>> {
        model.tensors.values().map(|tensor| tensor.to_f32(&Pool::new(1))).collect()
    };
    assert!(values(&small) == values(&auto), "the same windows give the same model");
    assert_eq!(small.provenance["special"], "on");

    let (off, others, lines) = trained(&model, 4, &run(&text, Switch::Off)).expect("trained");
    assert_ne!(others, losses);
    assert_eq!(
        (off.provenance["bos"].as_str(), lines[0].as_str()),
        ("off", "begin token: none (off)")
    );
    let (plain, same, lines) = trained(&silent, 4, &run(&text, Switch::Auto)).expect("trained");
    assert_eq!((same, lines.len()), (others, 3));
    assert_eq!(plain.provenance["bos"], "off");
}

#[test]
fn a_run_is_not_resumed_with_another_reading() {
    let (model, folder) = (model(), scratch("resume").display().to_string());
    let run = |bos, resume| RunConfig {
        text: Some(TEXT.repeat(3)),
        run_folder: Some(folder.clone()),
        checkpoint_every: Some(1),
        bos,
        resume,
        ..RunConfig::default()
    };
    trained(&model, 3, &run(Switch::Auto, false)).expect("trained");
    let error = trained(&model, 3, &run(Switch::Off, true)).expect_err("another run");
    assert_eq!(error.code(), "ERR_CHECKPOINT");
    trained(&model, 3, &run(Switch::On, true)).expect("it reads the same");
}

#[test]
fn a_model_generates_texts_that_begin_as_its_windows_do() {
    let model = model();
    let texts = |bos| {
        let settings = Settings { tokens: 64, sequence_length: LENGTH, seed: 1, batch: 4, bos };
        let text = generate(&model, settings, None, &mut |_| {}, &Host::default(), &Pool::new(1));
        text.expect("a text").read_as(Reading { bos, ..Reading::default() }).expect("read")
    };
    let (with, without) = (texts(Switch::Auto), texts(Switch::Off));
    let ids = with.tokens(&model, 1).expect("ids");
    assert_eq!(ids[0], bos(&model));
    let windows = with.windows(&model, LENGTH).expect("windows").tokens;
    assert!(windows.chunks(LENGTH).all(|w| w[0] == bos(&model) && !w[1..2].contains(&w[0])));
    assert_ne!(without.tokens(&model, 1).expect("ids")[0], bos(&model));
}

#[test]
fn training_on_answers_is_for_recipes_that_predict_tokens() {
    let model = chat_model(templates()[0]);
    let talk: &[&str] = &["Who goes there?", "A friend.", "Which of them?", "The one of old."];
    let path = file("train.jsonl", &conversations(&[talk; 6]));
    let run = RunConfig { data: Some(path), answers_only: true, ..RunConfig::default() };
    let (small, losses, lines) = trained(&model, 3, &run).expect("trained");
    assert!(losses.iter().all(|loss| loss.is_finite()));
    assert!(lines.contains(&"special tokens: read as tokens (auto)".to_owned()), "{lines:?}");
    let said = |key: &str| small.provenance[key].clone();
    assert_eq!([said("bos"), said("special"), said("answersOnly")], ["on: <bos>", "on", "true"]);
    let all = RunConfig { answers_only: false, ..run.clone() };
    assert_ne!(trained(&model, 3, &all).expect("trained").1, losses);

    let mut layers = ApiqConfig {
        train: BlockOptions { sequence_length: Some(LENGTH), ..BlockOptions::default() },
        ..ApiqConfig::default()
    };
    layers.common.group_size = Some(32);
    let layers = RecipeConfig::Apiq(layers);
    let error = quantize(&model, &layers, &run, &mut |_| {}, &Cancel::default());
    let text = error.expect_err("no token is predicted").to_string();
    assert!(text.starts_with("answersOnly: ") && text.contains("apiq"), "{text}");
    let plain = RunConfig { data: None, text: Some(TEXT.into()), ..run.clone() };
    let text = trained(&model, 1, &plain).expect_err("no conversation").to_string();
    assert!(text.starts_with("answersOnly: "), "{text}");

    let measured = RunConfig { validation: run.data.clone(), ..run.clone() };
    trained(&model, 1, &measured).expect("measured on answers");
    let early = RunConfig { validation_tokens: Some(LENGTH), ..measured };
    let long = ["Who ".repeat(3 * LENGTH), "A friend.".into()];
    let long = conversations(&[&[&long[0], &long[1]]]);
    let early = RunConfig { validation: Some(file("long.jsonl", &long)), ..early };
    let text = trained(&model, 1, &early).expect_err("no answer is that early").to_string();
    assert!(text.contains("no answer in its first 16 tokens"), "{text}");

    let mut lines = vec![];
    let mut hear = |event| {
        if let Event::Phase { name, detail } = event
            && name == "data"
        {
            lines.push(detail);
        }
    };
    plan(&model, &silq(3), &run, &mut hear, &Cancel::default()).expect("a plan");
    assert_eq!(lines[0], "begin token: <bos> before each window (auto)");
}
