use super::{Connection, SshError};
use dialoguer::Password;
use std::io::IsTerminal;
use std::path::PathBuf;

/// Keys that `ssh` too tries where none is named.
const DEFAULT_KEYS: [&str; 3] = [".ssh/id_ed25519", ".ssh/id_ecdsa", ".ssh/id_rsa"];

/// Tries the agent, then key files, then a password; asks for passphrase and password on a terminal.
///
/// # Errors
/// Where the board accepts none, with all that were tried.
pub fn login(connection: &Connection) -> Result<(), SshError> {
    let (session, site) = (&connection.session, &connection.site);
    // Asking for the methods is also the `none` login, which a board may accept.
    let methods = match session.auth_methods(&site.user) {
        Ok(methods) => methods.to_string(),
        Err(_) if session.authenticated() => return Ok(()),
        Err(error) => return Err(connection.failed("logging in", error)),
    };
    let mut tried = vec![];
    if methods.contains("publickey") {
        if site.keys.is_empty() {
            tried.push("the keys of the SSH agent".to_string());
            if with_agent(connection) {
                return Ok(());
            }
        }
        for key in keys(connection) {
            tried.push(key.display().to_string());
            if with_key(connection, &key) {
                return Ok(());
            }
        }
    }
    if methods.contains("password") && asks() {
        tried.push("the password".to_string());
        let prompt = format!("Password of {site}");
        let password = Password::new().with_prompt(prompt).allow_empty_password(true).interact();
        if password.is_ok_and(|password| session.userauth_password(&site.user, &password).is_ok()) {
            return Ok(());
        }
    }
    // A link that died meanwhile is no refusal.
    match session.keepalive_send() {
        Err(error) => Err(connection.failed("logging in", error)),
        Ok(_) if tried.is_empty() => {
            Err(SshError::Login { to: site.to_string(), tried: format!("nothing (it wants: {methods})") })
        }
        Ok(_) => Err(SshError::Login { to: site.to_string(), tried: tried.join(", ") }),
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

/// The keys that are named for the board, or else the usual ones that are there.
fn keys(connection: &Connection) -> Vec<PathBuf> {
    let site = &connection.site;
    if !site.keys.is_empty() {
        return site.keys.clone();
    }
    DEFAULT_KEYS.iter().map(|key| site.home.join(key)).filter(|key| key.is_file()).collect()
}

fn with_key(connection: &Connection, key: &std::path::Path) -> bool {
    let try_with = |passphrase: Option<&str>| {
        connection.session.userauth_pubkey_file(&connection.site.user, None, key, passphrase)
    };
    match try_with(None) {
        Ok(()) => true,
        // libssh2 says "file" of a key that it cannot read without its passphrase.
        Err(error) if error.code() == ssh2::ErrorCode::Session(NO_KEY) && key.is_file() && asks() => {
            let prompt = format!("Passphrase of {}", key.display());
            let passphrase = Password::new().with_prompt(prompt).allow_empty_password(true).interact();
            passphrase.is_ok_and(|passphrase| try_with(Some(&passphrase)).is_ok())
        }
        Err(_) => false,
    }
}

/// libssh2's LIBSSH2_ERROR_FILE.
const NO_KEY: i32 = -16;

fn asks() -> bool {
    std::io::stdin().is_terminal() && std::io::stderr().is_terminal()
}
