//! Which engine a command talks to, and as whom: by its flags, the environment, and a context.
//!
//! Owns the order of precedence. Pure but for what the environment says and the file of contexts.

use std::{env, path::PathBuf};

use levada_client::{BearerToken, Ca, ClientCertificate};
use levada_protocol::{error::ErrorCode, ids::InvalidName};
use levada_terminal::{Failure, Reach, TokenVariables};

use crate::{
    args::{ClientArgs, DEFAULT_ADDR},
    contexts::{Context, ContextName, Contexts, store::Store},
};

/// What the environment says of engines.
#[derive(Default)]
struct Environment {
    context: Option<String>,
    addr: Option<String>,
    ca: Option<PathBuf>,
    token: TokenVariables,
    cert: Option<PathBuf>,
    key: Option<PathBuf>,
}

impl Environment {
    fn of_process() -> Self {
        let text = |name: &str| env::var(name).ok();
        let file = |name: &str| env::var_os(name).map(PathBuf::from);
        Self {
            context: text(CONTEXT),
            addr: text("LEVADA_ADDR"),
            ca: file("LEVADA_CA"),
            token: TokenVariables::of_process(),
            cert: file("LEVADA_CERT"),
            key: file("LEVADA_CERT_KEY"),
        }
    }
}

const CONTEXT: &str = "LEVADA_CONTEXT";

/// The context that the environment names.
///
/// # Errors
/// If it is no name.
pub(crate) fn context_of_environment() -> Result<Option<ContextName>, Failure> {
    env::var(CONTEXT).ok().as_deref().map(parse_context).transpose()
}

fn parse_context(name: &str) -> Result<ContextName, Failure> {
    name.parse().map_err(|error: InvalidName| {
        Failure::new(ErrorCode::ConfigInvalid, format!("{CONTEXT} is wrong: {error}"))
    })
}

/// Finds out which engine the command is to talk to.
///
/// # Errors
/// If a context that is named does not exist, contexts cannot be read, or the environment's token is none.
pub(crate) fn resolve(args: &mut ClientArgs) -> Result<(), Failure> {
    let stored = || match Store::of_environment() {
        Some(store) => store.read(),
        None => Ok(Contexts::default()),
    };
    args.reach = choose(args, Environment::of_process(), stored)?;
    Ok(())
}

fn choose(
    args: &ClientArgs,
    environment: Environment,
    stored: impl FnOnce() -> Result<Contexts, Failure>,
) -> Result<Reach, Failure> {
    let context = context(args, &environment, stored)?;
    // What the environment says of trust and proofs is about the engine that it, or a default, names.
    let Environment {
        addr: environment_addr, ca: environment_ca, token: environment_token, cert, key, ..
    } = match args.context {
        Some(_) => Environment { addr: environment.addr, ..Environment::default() },
        None => environment,
    };
    let (mut context_addr, mut context_ca, mut context_token) = (None, None, None);
    if let Some(Context { addr, ca, token }) = context {
        (context_addr, context_ca, context_token) = (Some(addr), ca, token);
    }
    // A context chosen by flag says which engine; any other is only looked at where the environment does not.
    let addr = args.addr.clone().or(context_addr).or(environment_addr);
    let ca = args.ca.clone().or(environment_ca).map(Ca::File);
    let token = environment_token.or_flag(args.token_file.as_deref())?;
    let token = token.or_else(|| context_token.map(|token| BearerToken::Text(token.reveal())));
    Ok(Reach {
        addr: addr.unwrap_or_else(|| DEFAULT_ADDR.to_owned()),
        ca: ca.or_else(|| context_ca.map(|pem| Ca::Pem(pem.into_bytes()))),
        token,
        certificate: certificate(args.cert.clone().or(cert), args.cert_key.clone().or(key))?,
    })
}

/// A certificate and its key, which go together.
fn certificate(cert: Option<PathBuf>, key: Option<PathBuf>) -> Result<Option<ClientCertificate>, Failure> {
    let alone = |got: &str, missing: &str| {
        let message =
            format!("expected a client certificate and its key, got {got} alone: name {missing} as well");
        Err(Failure::new(ErrorCode::ConfigInvalid, message))
    };
    match (cert, key) {
        (None, None) => Ok(None),
        (Some(certificate), Some(key)) => Ok(Some(ClientCertificate { certificate, key })),
        (Some(_), None) => alone("the certificate", "--cert-key or LEVADA_CERT_KEY"),
        (None, Some(_)) => alone("the key", "--cert or LEVADA_CERT"),
    }
}

/// The context in force. Where an address is given otherwise there is none, unless --context itself names it: a token is
/// for one engine, and no other may see it.
fn context(
    args: &ClientArgs,
    environment: &Environment,
    stored: impl FnOnce() -> Result<Contexts, Failure>,
) -> Result<Option<Context>, Failure> {
    if args.context.is_none() && (args.addr.is_some() || environment.addr.is_some()) {
        return Ok(None);
    }
    let contexts = stored()?;
    let by_environment = match &args.context {
        Some(_) => None,
        None => environment.context.as_deref().map(parse_context).transpose()?,
    };
    let name = args.context.as_ref().or(by_environment.as_ref()).or_else(|| contexts.current());
    name.map(|name| contexts.get(name).cloned()).transpose()
}

#[cfg(test)]
mod tests {
    use levada_protocol::{ids::TokenId, token::Token};

    use super::*;

    fn token(id: u64) -> Token {
        Token::new(TokenId(id), [1; 32])
    }

    /// Contexts prod, with a CA and token 1, and dev, with neither; prod is the current one.
    fn stored() -> Contexts {
        let mut contexts = Contexts::default();
        let prod = Context { addr: "prod:1".into(), ca: Some("PEM".into()), token: Some(token(1)) };
        contexts.add("prod".parse().unwrap(), prod, false).unwrap();
        let dev = Context { addr: "dev:1".into(), ca: None, token: None };
        contexts.add("dev".parse().unwrap(), dev, false).unwrap();
        contexts.choose(&"prod".parse().unwrap()).unwrap();
        contexts
    }

    fn reach(addr: &str, ca: &str, token: &str) -> Reach {
        let ca = match ca {
            "" => None,
            "PEM" => Some(Ca::Pem(b"PEM".to_vec())),
            file => Some(Ca::File(file.into())),
        };
        let token = match token {
            "" => None,
            "1" | "2" => Some(BearerToken::Text(self::token(token.parse().unwrap()).reveal())),
            file => Some(BearerToken::File(file.into())),
        };
        Reach { addr: addr.to_owned(), ca, token, certificate: None }
    }

    fn chosen(flags: &str, variables: &str) -> Result<Reach, Failure> {
        let mut args = ClientArgs::default();
        for (name, value) in flags.split_whitespace().map(|flag| flag.split_once('=').unwrap()) {
            match name {
                "context" => args.context = Some(value.parse().unwrap()),
                "addr" => args.addr = Some(value.to_owned()),
                "ca" => args.ca = Some(value.into()),
                "cert" => args.cert = Some(value.into()),
                "key" => args.cert_key = Some(value.into()),
                _ => args.token_file = Some(value.into()),
            }
        }
        let mut environment = Environment::default();
        for (name, value) in variables.split_whitespace().map(|variable| variable.split_once('=').unwrap()) {
            let text = Some(value.to_owned());
            match name {
                "CONTEXT" => environment.context = text,
                "ADDR" => environment.addr = text,
                "CA" => environment.ca = Some(value.into()),
                "CERT" => environment.cert = Some(value.into()),
                "KEY" => environment.key = Some(value.into()),
                "TOKEN" => environment.token.text = Some(token(value.parse().unwrap()).reveal()),
                _ => environment.token.file = Some(value.into()),
            }
        }
        choose(&args, environment, || Ok(stored()))
    }

    #[test]
    fn a_flag_wins_over_the_environment_and_that_over_a_context() {
        for (flags, variables, expected) in [
            ("", "", reach("prod:1", "PEM", "1")),
            ("context=dev", "", reach("dev:1", "", "")),
            ("", "CONTEXT=dev", reach("dev:1", "", "")),
            ("context=prod", "CONTEXT=dev", reach("prod:1", "PEM", "1")),
            ("", "CA=env.pem", reach("prod:1", "env.pem", "1")),
            ("ca=flag.pem", "CA=env.pem", reach("prod:1", "flag.pem", "1")),
            ("", "TOKEN=2", reach("prod:1", "PEM", "2")),
            ("", "TOKEN_FILE=env.token", reach("prod:1", "PEM", "env.token")),
            ("token-file=flag.token", "TOKEN=2", reach("prod:1", "PEM", "flag.token")),
            ("context=prod ca=flag.pem", "TOKEN_FILE=env.token", reach("prod:1", "flag.pem", "1")),
            ("context=prod", "ADDR=other:1 CA=env.pem TOKEN=2", reach("prod:1", "PEM", "1")),
            ("context=dev", "TOKEN=2", reach("dev:1", "", "")),
            ("context=dev ca=flag.pem token-file=flag.token", "", reach("dev:1", "flag.pem", "flag.token")),
        ] {
            assert_eq!(chosen(flags, variables).unwrap(), expected, "{flags} {variables}");
        }
    }

    #[test]
    fn a_context_s_token_goes_to_no_other_address_unless_both_are_named() {
        for (flags, variables, expected) in [
            ("addr=other:1", "", reach("other:1", "", "")),
            ("addr=other:1", "CONTEXT=prod", reach("other:1", "", "")),
            ("addr=other:1", "CONTEXT=absent", reach("other:1", "", "")),
            ("addr=other:1 ca=flag.pem", "TOKEN=2", reach("other:1", "flag.pem", "2")),
            ("", "ADDR=other:1", reach("other:1", "", "")),
            ("", "ADDR=other:1 CONTEXT=prod", reach("other:1", "", "")),
            ("addr=flag:1", "ADDR=other:1", reach("flag:1", "", "")),
            ("context=prod", "ADDR=other:1", reach("prod:1", "PEM", "1")),
            ("context=prod addr=other:1", "", reach("other:1", "PEM", "1")),
        ] {
            assert_eq!(chosen(flags, variables).unwrap(), expected, "{flags} {variables}");
        }
    }

    #[test]
    fn without_any_of_them_it_is_the_engine_beside() {
        let args = ClientArgs::default();
        let found = choose(&args, Environment::default(), || Ok(Contexts::default())).unwrap();
        assert_eq!(found, reach(DEFAULT_ADDR, "", ""));
    }

    #[test]
    fn a_certificate_comes_with_its_key_from_flags_or_the_environment_that_names_the_engine() {
        let files =
            |cert: &str, key: &str| Some(ClientCertificate { certificate: cert.into(), key: key.into() });
        for (flags, variables, expected) in [
            ("cert=a.pem key=a.key", "", files("a.pem", "a.key")),
            ("", "CERT=e.pem KEY=e.key", files("e.pem", "e.key")),
            ("cert=a.pem key=a.key", "CERT=e.pem KEY=e.key", files("a.pem", "a.key")),
            ("context=dev", "CERT=e.pem KEY=e.key", None),
        ] {
            assert_eq!(chosen(flags, variables).unwrap().certificate, expected, "{flags} {variables}");
        }
        for (flags, variables, missing) in
            [("cert=a.pem", "", "LEVADA_CERT_KEY"), ("", "KEY=e.key", "LEVADA_CERT")]
        {
            let failure = chosen(flags, variables).unwrap_err().to_string();
            assert!(failure.contains(missing), "{failure}");
        }
    }

    #[test]
    fn contexts_that_cannot_be_read_matter_only_where_they_are_needed() {
        let unread = || Err(Failure::new(ErrorCode::ConfigInvalid, "unreadable"));
        let named = ClientArgs { addr: Some("a:1".into()), ..ClientArgs::default() };
        choose(&named, Environment::default(), unread).unwrap();
        choose(&ClientArgs::default(), Environment::default(), unread).unwrap_err();
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for (flags, variables, said) in [
            ("context=prd", "", "there is no context prd; there are dev, prod"),
            ("", "CONTEXT=prd", "there is no context prd; there are dev, prod"),
            ("", "CONTEXT=Big", "LEVADA_CONTEXT is wrong: context name \"Big\" is invalid"),
            ("", "TOKEN=2 TOKEN_FILE=f", "LEVADA_TOKEN and LEVADA_TOKEN_FILE are both set"),
        ] {
            let failure = chosen(flags, variables).unwrap_err().to_string();
            assert!(failure.contains(said), "{failure}");
        }
        let token = TokenVariables { text: Some("secret".to_owned()), file: None };
        let wrong = Environment { token, ..Environment::default() };
        let failure = choose(&ClientArgs::default(), wrong, || Ok(stored())).unwrap_err().to_string();
        assert_eq!(failure, "LEVADA_TOKEN is wrong: not a token: expected text that begins with lv1_");
    }
}
