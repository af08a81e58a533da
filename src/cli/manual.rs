//! Completions of shells and manual pages, made of the definition of the command line.

use std::io;

use clap::builder::Resettable;
use clap::{Command, CommandFactory};
use clap_complete::Shell;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, roman};

use super::{AFTER_HELP, Arguments};

const PROGRAM: &str = "sentry-mirror";

/// The completions of `shell`, as a script for it.
pub(crate) fn completions(shell: Shell) -> String {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), PROGRAM, &mut script);
    String::from_utf8_lossy(&script).into_owned()
}

/// The manual page of a subcommand or, without one, of the program, as roff.
///
/// # Errors
/// There is no such subcommand; the text lists those that exist.
pub(crate) fn page(subcommand: Option<&str>) -> Result<String, String> {
    // The names of subcommands then have that of the program in front.
    let mut program = Arguments::command()
        .name(PROGRAM)
        .disable_help_subcommand(true);
    program.build();
    let Some(wanted) = subcommand else {
        return Ok(roff(
            &Man::new(program.after_help(Resettable::Reset)),
            &sections(AFTER_HELP),
        ));
    };
    let Some(command) = program.find_subcommand(wanted) else {
        let names: Vec<&str> = program.get_subcommands().map(Command::get_name).collect();
        return Err(format!(
            "there is no subcommand {wanted:?}, expected one of {}",
            names.join(", ")
        ));
    };
    let title = format!("{PROGRAM}-{wanted}");
    Ok(roff(&Man::new(command.clone()).title(title), &Roff::new()))
}

fn roff(page: &Man, sections: &Roff) -> String {
    let mut text = Vec::new();
    let render = |text: &mut Vec<u8>| -> io::Result<()> {
        page.render(text)?;
        sections.to_writer(text)
    };
    // Writing to a vector cannot fail.
    let _ = render(&mut text);
    String::from_utf8_lossy(&text).into_owned()
}

/// A section for each paragraph, whose lines stay as they are.
fn sections(text: &str) -> Roff {
    let mut roff = Roff::new();
    for paragraph in text.split("\n\n") {
        let (heading, lines) = paragraph.split_once(":\n").unwrap_or(("", paragraph));
        roff.control("SH", [heading.to_uppercase().as_str()]);
        roff.control("nf", []);
        for line in lines.lines() {
            roff.text([roman(line)]);
        }
        roff.control("fi", []);
    }
    roff
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_subcommand_has_a_page_and_no_other_word_has() {
        for command in Arguments::command().get_subcommands() {
            let name = command.get_name();
            let text = page(Some(name)).unwrap();
            let title = format!(".TH sentry-mirror-{name} 1");
            assert!(text.contains(&title), "{title} in {text}");
        }
        let error = page(Some("chekc")).unwrap_err();
        assert!(error.contains("demo, sink, test"), "{error}");
    }

    #[test]
    fn the_page_of_the_program_has_signals_and_exit_codes() {
        let text = page(None).unwrap();
        for word in [
            ".SH EXAMPLES",
            ".SH SIGNALS",
            ".SH \"EXIT CODES\"",
            "\\-\\-check",
        ] {
            assert!(text.contains(word), "{word} in {text}");
        }
        assert!(!text.contains("EXTRA"), "{text}");
    }

    #[test]
    fn completions_know_every_subcommand_and_option() {
        let mut command = Arguments::command();
        command.build();
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let script = completions(shell);
            for subcommand in command.get_subcommands() {
                let name = subcommand.get_name();
                assert!(script.contains(name), "{name} in {script}");
            }
            for option in command.get_arguments().filter_map(clap::Arg::get_long) {
                assert!(script.contains(option), "{option} in {script}");
            }
        }
    }
}
