//! One valid file of each format, cut at every byte and with every bit of its header flipped: an error
//! with a place, or a parse that is as good as that of the valid one. Those of GGUF are in
//! `crates/formats/tests/hostile_files`.

use super::small_model::{assert_same, vocabulary};
use super::{Places, alone, checkpoint, own, place, tokenizer};
use halfstep::data::Text;
use halfstep_formats::architecture::fields::Form;
use halfstep_formats::load::load_bytes;
use halfstep_formats::safetensors::{self, Dtype, Entry};
use halfstep_formats::template::{Message, render};
use halfstep_formats::write::{FileFormat, to_bytes};
use halfstep_formats::{Tokenizer, config};
use halfstep_kernels::{Granularity, QuantSpec, ScaleCodec};

/// Reads a file whole.
type Reader = dyn Fn(&[u8]) -> halfstep::Result<()>;

/// A valid file.
struct Valid {
    format: &'static str,
    bytes: Vec<u8>,
    /// Bytes whose bits are flipped.
    header: usize,
    places: Places,
    /// Whether a part of the file can be a file too.
    parts: bool,
    /// Reads the file; what is accepted is checked.
    read: Box<Reader>,
}

fn container() -> Vec<u8> {
    let entry = |name: &str, dtype, shape: &[usize], bytes| Entry {
        name: name.into(),
        dtype,
        shape: shape.to_vec(),
        data: vec![0; bytes].into(),
    };
    let entries = vec![
        entry("a.weight", Dtype::F32, &[2, 3], 24),
        entry("b", Dtype::BF16, &[4], 8),
        entry("c", Dtype::U8, &[0], 0),
    ];
    let metadata = [("format".to_owned(), "pt".to_owned())].into();
    let mut bytes = vec![];
    safetensors::write(entries, &metadata, &mut bytes).expect("writes");
    bytes
}

/// A model of our layout: what is accepted is written and read back the same.
fn model(bytes: &[u8]) -> halfstep::Result<()> {
    let model = load_bytes("damaged", bytes)?;
    let again = to_bytes(&model, FileFormat::Halfstep)
        .unwrap_or_else(|e| panic!("accepted, but not writable: {e}"));
    assert_same(&model, &load_bytes("again", &again).expect("what we wrote"));
    Ok(())
}

const TEMPLATE: &str = "{%- set ns = namespace(i=0) -%}{% macro f(m, tag='x') %}<{{ tag }}>\
    {{ m.content | trim }}{% endmacro %}{# c #}\n{% for m in messages if m.role != 'system' %}\
    {% if loop.first and not loop.last %}{{ bos_token ~ f(m, tag=m['role']) }}{% else %}\
    {{ {'a': [1, 2.5, none]} | tojson }}{% endif %}{% set ns.i = ns.i + 1 %}{% endfor %}";

/// A file that is all header.
fn whole(
    format: &'static str,
    bytes: Vec<u8>,
    places: Places,
    parts: bool,
    read: impl Fn(&[u8]) -> halfstep::Result<()> + 'static,
) -> Valid {
    Valid { format, header: bytes.len(), bytes, places, parts, read: Box::new(read) }
}

fn files() -> Vec<Valid> {
    let (bytes, names) = (Places::Bytes, Places::Names);
    let header = |bytes: &[u8]| super::hostile::header_bytes(bytes);
    let first = super::any_model::small_file(1);
    let table = own::table();
    let second =
        own::version_2_file(QuantSpec::new(table, Granularity::Group(7), ScaleCodec::E8M0));
    let json = Tokenizer::new(vocabulary()).expect("sound").to_json().into_bytes();
    let decoder = super::any_model::architecture(true).in_form(Form::HuggingFace);
    let config_json = config::to_json(&decoder).expect("a config").to_string().into_bytes();
    let (manifest, state) = checkpoint::sound();
    let lines = "{\"text\": \"one\\nline\", \"id\": 3}\n{\"id\": [1], \"text\": \"zwölf\"}\n";
    let folder = super::any_model::Folder::new("damaged-texts");
    let container = container();
    vec![
        Valid {
            format: "safetensors",
            header: header(&container),
            bytes: container,
            places: bytes,
            parts: false,
            read: Box::new(|bytes: &[u8]| {
                let read = safetensors::read("damaged", bytes)?;
                let covered: u64 = read.tensors.iter().map(|t| t.end - t.begin).sum();
                let header = u64::from_le_bytes(bytes[..8].try_into().expect("8 bytes"));
                assert_eq!(8 + header + covered, bytes.len() as u64, "no byte left over");
                Ok(())
            }),
        },
        Valid {
            format: "own layout, version 1",
            header: header(&first),
            bytes: first,
            places: names,
            parts: false,
            read: Box::new(model),
        },
        Valid {
            format: "own layout, version 2",
            header: header(&second),
            bytes: second,
            places: names,
            parts: false,
            read: Box::new(model),
        },
        whole("tokenizer.json", json, names, false, |bytes: &[u8]| {
            let tokenizer = Tokenizer::from_json("tokenizer.json", bytes, None)?;
            let ids = tokenizer.encode("ab a", true)?;
            tokenizer.decode(&ids, false).expect("its own ids");
            let again = Tokenizer::from_json("again", tokenizer.to_json().as_bytes(), None);
            assert_eq!(tokenizer.vocabulary, again.expect("what we wrote").vocabulary);
            Ok(())
        }),
        whole("tokenizer.model", tokenizer::sound_model(), names, true, |bytes: &[u8]| {
            let read = Tokenizer::from_sentence_piece("tokenizer.model", bytes, None, None)?;
            let ids = read.encode("aab", true)?;
            read.decode(&ids, false).expect("its own ids");
            Ok(())
        }),
        whole("config.json", config_json, names, false, |bytes: &[u8]| {
            let graph = config::parse("config.json", bytes)?;
            let again = config::to_json(&graph).expect("a config").to_string();
            assert_eq!(graph, config::parse("again", again.as_bytes()).expect("ours"));
            Ok(())
        }),
        whole("chat template", TEMPLATE.into(), names, true, |bytes: &[u8]| {
            let Ok(template) = std::str::from_utf8(bytes) else { return Ok(()) };
            let message = Message { role: "user".into(), content: "one".into() };
            render(template, &[message], true, "<s>", "</s>")?;
            Ok(())
        }),
        whole("JSON lines", lines.into(), names, true, move |bytes: &[u8]| {
            folder.put("damaged.jsonl", bytes);
            let path = folder.join("damaged.jsonl").display().to_string();
            Text::read(Some(&path), None, 0)?;
            Ok(())
        }),
        whole("manifest", manifest, names, false, move |bytes: &[u8]| {
            assert_eq!(checkpoint::reads(bytes, &state)?, state);
            Ok(())
        }),
    ]
}

#[test]
fn cut_anywhere_and_with_any_bit_flipped_a_file_is_refused_or_read_as_it_is() {
    let _turn = alone();
    for Valid { format, bytes, header, places, parts, read } in files() {
        read(&bytes).unwrap_or_else(|e| panic!("{format}: the valid file: {e}"));
        let placed = |what: String, error: &halfstep::Error| {
            place(error, bytes.len(), places).unwrap_or_else(|e| panic!("{format}: {what}: {e}"));
        };
        let mut cuts = 0;
        for length in 0..bytes.len() {
            match read(&bytes[..length]) {
                Ok(()) => {
                    assert!(parts, "{format}: cut to {length} bytes of {}", bytes.len());
                    cuts += 1;
                }
                Err(error) => placed(format!("cut to {length} bytes"), &error),
            }
        }
        let (mut damaged, mut flips) = (bytes.clone(), 0);
        for bit in 0..8 * header {
            damaged[bit / 8] ^= 1 << (bit % 8);
            match read(&damaged) {
                Ok(()) => flips += 1,
                Err(error) => placed(format!("bit {bit} flipped"), &error),
            }
            damaged[bit / 8] ^= 1 << (bit % 8);
        }
        println!(
            "{format}: {} cuts, {cuts} of them whole files; {} flipped bits, {flips} of them read",
            bytes.len(),
            8 * header
        );
        assert!(flips < 8 * header && (parts || cuts == 0));
    }
}
