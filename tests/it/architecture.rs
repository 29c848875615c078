//! Who imports whom is what CONTRIBUTING.md says, and goes down only.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// For each room, the rooms it imports.
type Imports = BTreeMap<String, BTreeSet<String>>;

#[test]
fn each_room_imports_what_the_table_says_and_nothing_else() {
    let Table { mut imports, leaves } = Table::read();
    let mut found = Imports::new();
    scan(Path::new("src"), &mut found);
    for (room, rooms) in imports.iter_mut().chain(&mut found) {
        rooms.remove(room);
        if !leaves.contains(room) {
            rooms.retain(|imported| !leaves.contains(imported));
        }
    }
    assert_eq!(found.keys().collect::<Vec<_>>(), imports.keys().collect::<Vec<_>>());
    for (room, rooms) in &found {
        assert_eq!(rooms, &imports[room], "{room}: left the code, right the table of CONTRIBUTING.md");
    }
}

#[test]
fn imports_go_down_only() {
    let Table { mut imports, leaves } = Table::read();
    for (room, rooms) in &mut imports {
        if !leaves.contains(room) {
            rooms.extend(leaves.iter().cloned());
        }
    }
    while !imports.is_empty() {
        let lowest = imports.iter().find(|(_, rooms)| rooms.is_empty()).map(|(room, _)| room.clone());
        let lowest = lowest.unwrap_or_else(|| panic!("there is a cycle among {imports:?}"));
        imports.remove(&lowest);
        imports.values_mut().for_each(|rooms| _ = rooms.remove(&lowest));
    }
}

/// CONTRIBUTING.md's table of rooms.
struct Table {
    imports: Imports,
    /// What every room may import besides.
    leaves: BTreeSet<String>,
}

impl Table {
    fn read() -> Self {
        let text = fs::read_to_string("CONTRIBUTING.md").unwrap();
        let (_, table) = text.split_once("| room |").expect("the table of rooms");
        let rows = table.lines().skip(2).take_while(|line| line.starts_with('|'));
        let imports = rows.map(|row| {
            let cells: Vec<&str> = row.split('|').collect();
            (names(cells[1]).pop_first().expect("a room's name"), names(cells[3]))
        });
        let (_, leaves) = text.split_once("Every room may import ").expect("what everything may use");
        Self { imports: imports.collect(), leaves: names(leaves.lines().next().unwrap()) }
    }
}

/// What stands between backticks.
fn names(text: &str) -> BTreeSet<String> {
    text.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// Adds what the files of a folder import. A room is a file of `src`, with the folder of the same name.
fn scan(folder: &Path, found: &mut Imports) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            scan(&path, found);
            continue;
        }
        let inside = path.strip_prefix("src").unwrap().with_extension("");
        let room = inside.components().next().unwrap().as_os_str().to_str().unwrap();
        if room != "lib" {
            let rooms = found.entry(room.to_owned()).or_default();
            rooms.extend(imported(&fs::read_to_string(&path).unwrap()));
        }
    }
}

/// The rooms a file names, but for its comments and its tests.
fn imported(source: &str) -> impl Iterator<Item = String> {
    let code = source.split("#[cfg(test)]").next().unwrap();
    let lines = code.lines().filter(|line| !line.trim_start().starts_with("//"));
    lines.flat_map(|line| line.split("crate::").skip(1).chain(line.split("cloakroom::").skip(1))).map(
        |rest| {
            let name: String =
                rest.chars().take_while(|sign| sign.is_ascii_lowercase() || *sign == '_').collect();
            assert!(!name.is_empty(), "one `use` for each room, not `crate::{rest}`");
            name
        },
    )
}
