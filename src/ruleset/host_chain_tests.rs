use proptest::prelude::*;

use super::*;
use crate::ruleset::expr::{Base, CtKey, ct_state};
use crate::ruleset::model::BaseChain;

const MARK: Mark = Mark::DEFAULT;

fn rule(exprs: Vec<Expr>) -> Rule {
    Rule { comment: None, exprs }
}

fn verdict(verdict: Verdict) -> Rule {
    rule(vec![Expr::Counter, Expr::Verdict(verdict)])
}

fn jump(to: &str) -> Rule {
    verdict(Verdict::Jump(to.to_owned()))
}

fn port(verdict: Verdict) -> Rule {
    rule(vec![
        Expr::Payload { base: Base::Transport, offset: 2, len: 2, reg: Reg(0) },
        Expr::Cmp { reg: Reg(0), op: CmpOp::Eq, data: vec![0, 80] },
        Expr::Verdict(verdict),
    ])
}

fn source(op: CmpOp) -> Rule {
    rule(vec![
        Expr::Payload { base: Base::Network, offset: 12, len: 4, reg: Reg(0) },
        Expr::Cmp { reg: Reg(0), op, data: vec![192, 0, 2, 1] },
        Expr::Verdict(Verdict::Drop),
    ])
}

fn state(bits: u32, op: CmpOp) -> Rule {
    rule(vec![
        Expr::Ct { key: CtKey::State, reg: Reg(0) },
        Expr::Bitwise { reg: Reg(0), mask: bits.to_ne_bytes().to_vec(), xor: vec![0; 4] },
        Expr::Cmp { reg: Reg(0), op, data: vec![0; 4] },
        Expr::Counter,
        Expr::Verdict(Verdict::Drop),
    ])
}

fn chain(name: &str, hook: Option<Hook>, rules: Vec<Rule>) -> Chain {
    let base = hook.map(|hook| BaseChain { kind: ChainType::Filter, hook, priority: 0, drops: true });
    Chain { name: name.to_owned(), base, rules }
}

fn table(family: HostFamily, chains: Vec<Chain>) -> HostTable {
    let mut next = 0;
    let handles = chains.iter().map(|chain| {
        let first = next + 1;
        next += 1 + chain.rules.len() as u64;
        (first..next).collect()
    });
    let handles = handles.collect();
    HostTable { family, name: "filter".to_owned(), owned: false, chains, handles }
}

fn wish(chain: Option<&str>) -> HostChains {
    HostChains {
        wishes: vec![Wish {
            table: "filter".to_owned(),
            hook: Hook::Input,
            chain: chain.map(str::to_owned),
            base: None,
            else_base: true,
            by_operator: true,
        }],
    }
}

/// What the kernel would make of a plan.
fn carried_out(tables: &[HostTable], plan: &HostPlan) -> Vec<HostTable> {
    let mut tables = tables.to_vec();
    for change in &plan.changes {
        let (HostChange::Insert { chain: at, .. } | HostChange::Delete { chain: at, .. }) = change;
        let table = tables.iter_mut().find(|t| (t.family, &t.name) == (at.family, &at.table)).unwrap();
        let index = table.chains.iter().position(|chain| chain.name == at.chain).unwrap();
        let (chain, handles) = (&mut table.chains[index], &mut table.handles[index]);
        match change {
            HostChange::Insert { before, rule, .. } => {
                let place = before.map_or(handles.len(), |before| {
                    handles.iter().position(|&handle| handle == before).expect("a rule that is there")
                });
                handles.insert(place, 1_000 + handles.len() as u64);
                chain.rules.insert(place, rule.clone());
            }
            HostChange::Delete { handle, .. } => {
                let place = handles.iter().position(|have| have == handle).expect("a rule that is there");
                assert!(is_ours(&chain.rules[place]), "somebody else's rule");
                handles.remove(place);
                chain.rules.remove(place);
            }
        }
    }
    tables
}

/// Where our rule comes to be in the first chain of a table.
fn place_in(tables: &[HostTable]) -> Option<usize> {
    tables[0].chains[0].rules.iter().position(is_ours)
}

#[track_caller]
fn settled(tables: &[HostTable], wanted: &HostChains) -> Vec<HostTable> {
    let after = carried_out(tables, &plan_host(wanted, Some(MARK), tables));
    assert_eq!(plan_host(wanted, Some(MARK), &after).changes, [], "once is enough");
    after
}

#[test]
fn it_comes_first_but_behind_bans_that_can_be_told() {
    let bans = "bans";
    for (rules, place) in [
        (vec![], 0),
        (vec![verdict(Verdict::Drop)], 0),
        (vec![port(Verdict::Accept), verdict(Verdict::Drop)], 0),
        (vec![source(CmpOp::Eq), verdict(Verdict::Drop)], 1),
        (vec![port(Verdict::Accept), state(ct_state::INVALID, CmpOp::Ne), port(Verdict::Drop)], 2),
        (vec![jump(bans), verdict(Verdict::Drop)], 1),
        // Everybody but one, everything that is not established, whatever is new: no bans.
        (vec![source(CmpOp::Ne)], 0),
        (vec![state(ct_state::ESTABLISHED, CmpOp::Eq)], 0),
        (vec![state(ct_state::NEW, CmpOp::Ne)], 0),
        // What stands behind something that may drop us is not looked at.
        (vec![port(Verdict::Drop), source(CmpOp::Eq)], 0),
        (vec![verdict(Verdict::Return), source(CmpOp::Eq)], 0),
        (vec![jump("unknown"), source(CmpOp::Eq)], 0),
        (vec![rule(vec![Expr::Foreign("queue".into())]), source(CmpOp::Eq)], 0),
    ] {
        let banning = vec![port(Verdict::Accept), source(CmpOp::Eq), verdict(Verdict::Return)];
        let tables = [table(
            HostFamily::Inet,
            vec![chain("INPUT", Some(Hook::Input), rules.clone()), chain(bans, None, banning)],
        )];
        let after = settled(&tables, &wish(None));
        assert_eq!(place_in(&after), Some(place), "{rules:?}");
    }
}

#[test]
fn a_rule_in_a_good_place_is_not_moved_and_one_before_a_ban_is() {
    let ours = accept_rule(Hook::Input, MARK);
    let at = |rules| [table(HostFamily::Ip, vec![chain("INPUT", Some(Hook::Input), rules)])];
    let good = at(vec![port(Verdict::Accept), ours.clone(), port(Verdict::Drop)]);
    assert_eq!(plan_host(&wish(None), Some(MARK), &good).changes, []);
    let bad = at(vec![ours.clone(), source(CmpOp::Eq), port(Verdict::Drop)]);
    assert_eq!(place_in(&settled(&bad, &wish(None))), Some(1));
    let late = at(vec![port(Verdict::Drop), ours]);
    assert_eq!(place_in(&settled(&late, &wish(None))), Some(0));
}

#[test]
fn a_chain_that_is_reached_gets_it_and_else_the_hooked_one() {
    let services = |rules| chain("services", None, rules);
    let hooked = |rules| chain("INPUT", Some(Hook::Input), rules);
    let names = |tables: &[HostTable]| -> Vec<String> {
        let chains = settled(tables, &wish(Some("services"))).remove(0).chains;
        chains.into_iter().filter(|chain| chain.rules.iter().any(is_ours)).map(|chain| chain.name).collect()
    };
    let by_way = chain("way", None, vec![jump("services")]);
    for (chains, into) in [
        (vec![hooked(vec![jump("services")]), services(vec![])], "services"),
        (vec![hooked(vec![jump("way")]), by_way, services(vec![])], "services"),
        (vec![hooked(vec![]), services(vec![])], "INPUT"),
        (vec![hooked(vec![])], "INPUT"),
    ] {
        let tables = [table(HostFamily::Ip, chains)];
        assert_eq!(names(&tables), [into]);
    }
    let tables = [table(HostFamily::Ip, vec![hooked(vec![]), services(vec![])])];
    let plan = plan_host(&wish(Some("services")), Some(MARK), &tables);
    assert!(matches!(plan.troubles[..], [Trouble::NotReached(_)]), "{:?}", plan.troubles);
    let plan = plan_host(&wish(Some("services")), Some(MARK), &tables[..0]);
    assert!(matches!(plan.troubles[..], [Trouble::Nowhere { .. }]), "{:?}", plan.troubles);
}

#[test]
fn chains_that_run_before_the_mark_is_set_are_of_no_use() {
    let mut early = chain("mangle", Some(Hook::Input), vec![]);
    early.base.as_mut().unwrap().priority = -150;
    let tables = [table(HostFamily::Ip, vec![early])];
    assert_eq!(plan_host(&wish(None), Some(MARK), &tables).changes, []);
}

#[test]
fn ipv6_chains_of_vyos_have_names_of_their_own() {
    for (name, v6) in [
        ("NAME_IN-KnockPort", "NAME6_IN-KnockPort"),
        ("VYOS_INPUT_filter", "VYOS_IPV6_INPUT_filter"),
        ("VYOS_ZONE_LOCAL", "VYOS_ZONE_LOCAL"),
        ("INPUT", "INPUT"),
    ] {
        assert_eq!(counterpart(name, HostFamily::Ip6), v6);
        assert_eq!(counterpart(name, HostFamily::Ip), name);
    }
}

#[test]
fn an_owned_table_and_a_missing_mark_change_nothing() {
    let mut owned = table(HostFamily::Inet, vec![chain("INPUT", Some(Hook::Input), vec![])]);
    owned.owned = true;
    let plan = plan_host(&wish(None), Some(MARK), &[owned]);
    assert_eq!(plan.changes, []);
    assert!(matches!(plan.troubles[..], [Trouble::Owned(..)]));
    let ours = vec![accept_rule(Hook::Input, MARK)];
    let plan =
        plan_host(&wish(None), None, &[table(HostFamily::Ip, vec![chain("x", Some(Hook::Input), ours)])]);
    assert!(matches!(plan.changes[..], [HostChange::Delete { .. }]));
}

/// Any rules, ours among them at any place and any number of times.
fn any_rules() -> impl Strategy<Value = Vec<Rule>> {
    let one = prop_oneof![
        Just(verdict(Verdict::Drop)),
        Just(port(Verdict::Accept)),
        Just(source(CmpOp::Eq)),
        Just(source(CmpOp::Ne)),
        Just(state(ct_state::INVALID, CmpOp::Ne)),
        Just(jump("services")),
        Just(accept_rule(Hook::Input, MARK)),
        Just(accept_rule(Hook::Forward, MARK)),
        Just(Rule { comment: Some("mine".to_owned()), ..accept_rule(Hook::Input, MARK) }),
    ];
    prop::collection::vec(one, 0..8)
}

proptest! {
    #[test]
    fn whatever_is_there_ours_is_there_once_afterwards_and_all_else_as_before(
        hooked in any_rules(),
        services in any_rules(),
        named in any::<bool>(),
    ) {
        let services = services.into_iter().filter(|rule| *rule != jump("services")).collect();
        let chains = vec![chain("INPUT", Some(Hook::Input), hooked), chain("services", None, services)];
        let tables = [table(HostFamily::Inet, chains)];
        let wanted = wish(named.then_some("services"));
        let after = settled(&tables, &wanted);
        let all = |tables: &[HostTable]| tables[0].chains.iter().flat_map(|c| c.rules.clone()).collect::<Vec<_>>();
        prop_assert_eq!(all(&after).iter().filter(|rule| is_ours(rule)).count(), 1);
        let theirs = |tables: &[HostTable]| all(tables).into_iter().filter(|r| !is_ours(r)).collect::<Vec<_>>();
        prop_assert_eq!(theirs(&after), theirs(&tables));
        let gone = carried_out(&after, &plan_host(&HostChains::default(), None, &after));
        prop_assert_eq!(all(&gone), theirs(&tables));
    }
}
