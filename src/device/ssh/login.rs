use super::{Connection, SshError, asks};
use dialoguer::Password;
use nas_probe::printable;
use ssh2::{KeyboardInteractivePrompt, Prompt};
use std::fmt;
use std::path::{Path, PathBuf};

/// Keys that `ssh` also tries if none is named.
const USUAL_KEYS: [&str; 3] = [".ssh/id_ed25519", ".ssh/id_ecdsa", ".ssh/id_rsa"];

/// Tries all authentication methods that the board offers, and asks for passphrases and passwords on a terminal.
///
/// # Errors
/// Fails if the board accepts none of them. The error lists all that were tried.
pub fn login(connection: &Connection) -> Result<(), SshError> {
    let (session, site) = (&connection.session, &connection.site);
    // Asking for the methods is itself a login by the method `none`, which a board may accept.
    let methods = match session.auth_methods(&site.user) {
        Ok(methods) => methods.to_string(),
        Err(_) if session.authenticated() => return Ok(()),
        Err(error) => return Err(connection.failed("logging in", error)),
    };
    let logins = logins(connection, &methods);
    if logins.iter().any(|login| login.succeeds(connection)) {
        return Ok(());
    }
    // If the link broke meanwhile, the board did not refuse anything.
    session.keepalive_send().map_err(|error| connection.failed("logging in", error))?;
    let tried: Vec<String> = logins.iter().map(Login::to_string).collect();
    let tried = if tried.is_empty() { format!("nothing (it offers only: {methods})") } else { tried.join(", ") };
    Err(SshError::Login { to: site.to_string(), tried })
}

/// An authentication method.
enum Login {
    Key(PathBuf),
    Agent,
    /// The board's own questions (RFC 4256), most often for the password.
    Questions,
    Password,
}

impl fmt::Display for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Login::Key(key) => write!(f, "the key {}", key.display()),
            Login::Agent => f.write_str("the keys of the SSH agent"),
            Login::Questions => f.write_str("the answers to its questions"),
            Login::Password => f.write_str("the password"),
        }
    }
}

/// Returns the logins that use `methods`, in the order in which they are tried. Keys that are named for the board come
/// first, since an agent with many keys could use up the attempts that the board allows.
fn logins(connection: &Connection, methods: &str) -> Vec<Login> {
    let site = &connection.site;
    let mut logins = vec![];
    if methods.contains("publickey") {
        logins.extend(site.keys.iter().cloned().map(Login::Key));
        logins.push(Login::Agent);
        if site.keys.is_empty() {
            let usual = USUAL_KEYS.iter().map(|key| site.home.join(key));
            logins.extend(usual.filter(|key| key.is_file()).map(Login::Key));
        }
    }
    if asks() {
        let offered = [("keyboard-interactive", Login::Questions), ("password", Login::Password)];
        logins.extend(offered.into_iter().filter(|(method, _)| methods.contains(method)).map(|(_, login)| login));
    }
    logins
}

impl Login {
    fn succeeds(&self, connection: &Connection) -> bool {
        let (session, user) = (&connection.session, &connection.site.user);
        match self {
            Login::Key(key) => with_key(connection, key),
            Login::Agent => with_agent(connection),
            Login::Questions => session.userauth_keyboard_interactive(user, &mut Terminal).is_ok(),
            Login::Password => {
                let password = ask(&format!("Password of {}", connection.site));
                password.is_some_and(|password| session.userauth_password(user, &password).is_ok())
            }
        }
    }
}

fn with_agent(connection: &Connection) -> bool {
    let Ok(mut agent) = connection.session.agent() else { return false };
    if agent.connect().and_then(|()| agent.list_identities()).is_err() {
        return false;
    }
    let identities = agent.identities().unwrap_or_default();
    identities.iter().any(|identity| agent.userauth(&connection.site.user, identity).is_ok())
}

fn with_key(connection: &Connection, key: &Path) -> bool {
    let try_with = |passphrase: Option<&str>| {
        connection.session.userauth_pubkey_file(&connection.site.user, None, key, passphrase)
    };
    match try_with(None) {
        Ok(()) => true,
        // libssh2 reports a file error for a key that it cannot read without its passphrase.
        Err(error) if error.code() == ssh2::ErrorCode::Session(NO_KEY) && key.is_file() && asks() => {
            let passphrase = ask(&format!("Passphrase of {}", key.display()));
            passphrase.is_some_and(|passphrase| try_with(Some(&passphrase)).is_ok())
        }
        Err(_) => false,
    }
}

/// libssh2's LIBSSH2_ERROR_FILE.
const NO_KEY: i32 = -16;

/// Shows the board's questions on the terminal.
struct Terminal;

impl KeyboardInteractivePrompt for Terminal {
    fn prompt<'a>(&mut self, _: &str, instructions: &str, prompts: &[Prompt<'a>]) -> Vec<String> {
        if !instructions.is_empty() {
            log::info!("{}", printable(instructions));
        }
        let answer = |prompt: &Prompt| ask(&printable(prompt.text.trim().trim_end_matches(':'))).unwrap_or_default();
        prompts.iter().map(answer).collect()
    }
}

/// Asks for an answer, which is not shown while it is typed.
fn ask(question: &str) -> Option<String> {
    Password::new().with_prompt(question).allow_empty_password(true).interact().ok()
}
