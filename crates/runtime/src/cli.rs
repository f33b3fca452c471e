//! The arguments every process of the suite takes, and reading a command line.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use clap::{Args, Parser, ValueEnum};

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

/// What a process needs before it can begin: its log and its way to the API server.
#[derive(Args, Clone, Debug)]
pub struct ProcessArgs {
    /// How much to log: up to 2 informs, 3 to 5 adds decisions, above that everything
    #[arg(short = 'v', long = "v", default_value_t = 2, value_name = "LEVEL")]
    pub verbosity: u8,
    /// How log lines look
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,
    /// Path of a kubeconfig; without it, the pod's own service account, or what kubectl would use
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<String>,
    /// Address of the API server, if not the one of the kubeconfig
    #[arg(long, value_name = "URL")]
    pub master: Option<String>,
}

/// Where a process listens.
#[derive(Args, Clone, Debug)]
pub struct ListenArgs {
    /// Port for probes, metrics and whatever else is served over HTTPS
    #[arg(long, default_value_t = 8443)]
    pub port: u16,
    /// Address to listen on
    #[arg(long, default_value_t = IpAddr::V4(Ipv4Addr::UNSPECIFIED))]
    pub listen: IpAddr,
}

impl ListenArgs {
    /// Address and port together.
    pub fn addr(&self) -> SocketAddr {
        SocketAddr::new(self.listen, self.port)
    }
}

/// Reads a command line whose first word is the program's name. Of a flag that is given twice the last one counts: flags
/// of `customizeComponents` stand in a container's command, the suite's own in the arguments behind it.
///
/// # Errors
/// An unknown flag or a wrong value; also a request for help or the version, which is no failure (see
/// [`clap::Error::use_stderr`]).
pub fn parse<T: Parser>(args: &[String]) -> Result<T, clap::Error> {
    let mut command = T::command().args_override_self(true);
    let matches = command.try_get_matches_from_mut(args)?;
    T::from_arg_matches(&matches).map_err(|error| error.format(&mut command))
}

/// As [`parse`], for a program that is already on its host: a request for help or the version is answered in the log, since
/// programs that share a process share its output, and nothing is left to do.
///
/// # Errors
/// An unknown flag or a wrong value.
pub fn begin<T: Parser>(args: &[String]) -> Result<Option<T>, clap::Error> {
    match parse(args) {
        Err(answer) if !answer.use_stderr() => {
            tracing::info!("{}", answer.to_string().trim_end());
            Ok(None)
        }
        parsed => parsed.map(Some),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Parser, Debug)]
    #[command(version = "1")]
    struct Both {
        #[command(flatten)]
        process: ProcessArgs,
        #[command(flatten)]
        listen: ListenArgs,
    }

    fn parse_line(line: &str) -> Result<Both, clap::Error> {
        parse(&line.split(' ').map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn verbosity_is_accepted_as_manifests_write_it() {
        for line in ["x -v 3", "x --v 3", "x --v=3", "x -v=3", "x -v3"] {
            assert_eq!(parse_line(line).unwrap().process.verbosity, 3, "{line}");
        }
        let both = parse_line("x --port 9443 --listen 127.0.0.1 --log-format json --kubeconfig /k").unwrap();
        assert_eq!(both.listen.addr().to_string(), "127.0.0.1:9443");
        assert_eq!((both.process.log_format, both.process.kubeconfig.as_deref()), (LogFormat::Json, Some("/k")));
        assert_eq!(parse_line("x").unwrap().listen.addr().to_string(), "0.0.0.0:8443");
    }

    #[test]
    fn of_a_flag_that_is_given_twice_the_last_one_counts() {
        assert_eq!(parse_line("x --v 5 --port 8443 -v 2 --port 9443").unwrap().process.verbosity, 2);
        assert_eq!(parse_line("x --port 8443 --port 9443").unwrap().listen.port, 9443);
    }

    #[test]
    fn who_asks_for_the_version_is_answered_and_nothing_begins() {
        let begin = |line: &str| begin::<Both>(&line.split(' ').map(str::to_owned).collect::<Vec<_>>());
        for line in ["x --version", "x --help"] {
            assert!(begin(line).is_ok_and(|it| it.is_none()), "{line}");
        }
        assert!(begin("x -v 3").is_ok_and(|it| it.is_some()));
        assert!(begin("x --prot 1").is_err());
    }

    #[test]
    fn an_unknown_flag_is_named() {
        let error = parse_line("x --prot 1").unwrap_err();
        assert!(error.to_string().contains("'--prot'"), "{error}");
        assert!(error.use_stderr());
    }
}
