//! `man`: manual pages of the program and of each command, from what `--help` shows.

use std::fs;
use std::io;
use std::path::Path;

use clap::{Command, CommandFactory as _};
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};

use crate::cli::{Cli, ManArgs};
use crate::failure::{Exit, Failure};
use crate::output::print;

/// Writes `attn-bench.1` and a page a command, and prints where they are.
pub fn execute(args: &ManArgs) -> Result<Exit, Failure> {
    let dir = &args.dir;
    if dir.ancestors().any(Path::is_file) {
        return Err(Failure::input(format!(
            "{}: a part of it is a file, name a folder",
            dir.display()
        )));
    }
    let cannot =
        |path: &Path, error: io::Error| Failure::machine(format!("cannot write {}: {error}", path.display()));
    fs::create_dir_all(dir).map_err(|error| cannot(dir, error))?;
    let mut program = Cli::command().disable_help_subcommand(true);
    program.build();
    let commands = program.get_subcommands().filter(|command| !command.is_hide_set());
    let mut written = String::new();
    for command in std::iter::once(&program).chain(commands) {
        // Two quotes are an empty date, which keeps the source from being read as one.
        let man = Man::new(command.clone())
            .date("\"\"")
            .source(concat!("attn-bench ", env!("CARGO_PKG_VERSION")));
        let path = dir.join(man.get_filename());
        let text = page(&man, command).map_err(|error| cannot(&path, error))?;
        fs::write(&path, text).map_err(|error| cannot(&path, error))?;
        written += &format!("{}\n", path.display());
    }
    print(&written)?;
    Ok(Exit::Done)
}

/// A page. `Man::render` would fill the lines of examples like a paragraph.
fn page(man: &Man, command: &Command) -> io::Result<Vec<u8>> {
    let mut out = Vec::new();
    man.render_title(&mut out)?;
    man.render_name_section(&mut out)?;
    man.render_synopsis_section(&mut out)?;
    man.render_description_section(&mut out)?;
    if command.get_arguments().next().is_some() {
        man.render_options_section(&mut out)?;
    }
    let is_program = command.has_subcommands();
    if is_program {
        man.render_subcommands_section(&mut out)?;
    }
    if let Some(text) = command.get_after_help() {
        after_help(&text.to_string()).to_writer(&mut out)?;
    }
    if !is_program {
        let mut see = Roff::new();
        see.control("SH", ["SEE ALSO"]);
        see.text([bold("attn-bench"), roman("(1)")]);
        see.to_writer(&mut out)?;
    }
    Ok(out)
}

/// The paragraphs after the options: those with a title of their own, line by line as they are typed, and notes.
fn after_help(text: &str) -> Roff {
    let mut roff = Roff::new();
    for paragraph in text.trim().split("\n\n") {
        let (title, lines) = match paragraph.split_once('\n') {
            Some(("Examples:", lines)) => ("EXAMPLES", lines),
            Some(("Exit codes:", lines)) => ("EXIT STATUS", lines),
            _ => ("NOTES", paragraph),
        };
        roff.control("SH", [title]);
        if title == "EXAMPLES" {
            roff.control("nf", []);
        }
        for line in lines.lines() {
            roff.text([roman(line.trim())]);
        }
        if title == "EXAMPLES" {
            roff.control("fi", []);
        }
    }
    roff
}
