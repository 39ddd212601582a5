//! Tables and their forward-only migrations.
//!
//! A migration is one script; its number is `PRAGMA user_version`. Released scripts never change.
//! Names and attributes are those of the architecture overview, in snake case. Instants are
//! milliseconds since the Unix epoch, ids are text, so that an operator can read them.

use rusqlite::{Connection, TransactionBehavior};

use crate::StoreError;

/// `PRAGMA application_id` of our files: "OTPT".
const APPLICATION_ID: i32 = 0x4f54_5054;

const MIGRATIONS: [&str; 8] = [
    include_str!("schema/0001_first.sql"),
    include_str!("schema/0002_checksums.sql"),
    include_str!("schema/0003_secrets.sql"),
    include_str!("schema/0004_usage.sql"),
    include_str!("schema/0006_retention_outbox.sql"),
    include_str!("schema/0007_promotions.sql"),
    include_str!("schema/0008_tenants.sql"),
    include_str!("schema/0010_searches.sql"),
];

/// Newest schema this version knows.
pub const SCHEMA_VERSION: u32 = MIGRATIONS.len() as u32;

/// Brings the file to [`SCHEMA_VERSION`], one transaction per step.
pub(crate) fn migrate(connection: &mut Connection, install_id: u128) -> Result<(), StoreError> {
    let found = version(connection)?;
    for (index, script) in MIGRATIONS.iter().enumerate().skip(found as usize) {
        let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        tx.execute_batch(script)?;
        let version = index as u32 + 1;
        tx.pragma_update(None, "user_version", version)?;
        tx.pragma_update(None, "application_id", APPLICATION_ID)?;
        let meta = "INSERT INTO meta (name, value) VALUES (?1, ?2)
                    ON CONFLICT(name) DO UPDATE SET value = excluded.value";
        tx.execute(meta, ("schema_version", version.to_string()))?;
        if version == 1 {
            tx.execute(meta, ("install_id", format!("{install_id:032x}")))?;
        }
        tx.commit()?;
        tracing::info!(version, "store schema migrated");
    }
    Ok(())
}

/// The file's schema, once it is known to be ours and not too new; 0 for an empty file.
pub(crate) fn version(connection: &Connection) -> Result<u32, StoreError> {
    let number = |pragma: &str| -> rusqlite::Result<i32> {
        connection.query_row(&format!("PRAGMA {pragma}"), [], |row| row.get(0))
    };
    let (application, version) = (number("application_id")?, number("user_version")?);
    let objects: i64 =
        connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    let empty = application == 0 && version == 0 && objects == 0;
    if !empty && application != APPLICATION_ID {
        let path = connection.path().unwrap_or_default().into();
        return Err(StoreError::Foreign { path });
    }
    let found = u32::try_from(version).map_err(|_| StoreError::corrupt("a negative schema"))?;
    if found > SCHEMA_VERSION {
        let known = SCHEMA_VERSION;
        return Err(StoreError::SchemaNewer { found, known });
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn objects(connection: &Connection) -> Vec<(String, Option<String>)> {
        let mut statement =
            connection.prepare("SELECT name, sql FROM sqlite_schema ORDER BY name").unwrap();
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
        rows.collect::<Result<_, _>>().unwrap()
    }

    #[test]
    fn a_file_of_every_earlier_version_becomes_a_current_one() {
        let mut fresh = Connection::open_in_memory().unwrap();
        migrate(&mut fresh, 7).unwrap();
        for released in 1..MIGRATIONS.len() {
            let mut old = Connection::open_in_memory().unwrap();
            for script in &MIGRATIONS[..released] {
                old.execute_batch(script).unwrap();
            }
            old.pragma_update(None, "user_version", released as u32).unwrap();
            old.pragma_update(None, "application_id", APPLICATION_ID).unwrap();
            old.execute("INSERT INTO meta VALUES ('install_id', 'mine')", []).unwrap();
            migrate(&mut old, 7).unwrap();
            assert_eq!(version(&old).unwrap(), SCHEMA_VERSION);
            assert_eq!(objects(&old), objects(&fresh), "from version {released}");
            let kept = "SELECT value FROM meta WHERE name = 'install_id'";
            let kept: String = old.query_row(kept, [], |row| row.get(0)).unwrap();
            assert_eq!(kept, "mine");
        }
    }
}
