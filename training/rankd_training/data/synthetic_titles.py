"""Invented film titles: readable, varied, unique, and tinted by the film's first genre."""

from __future__ import annotations

import numpy as np

_NOUNS = {
    "Action": "Convoy Breach Detonator Outrider Checkpoint Payload Ironclad Pursuit Ambush Tripwire",
    "Adventure": "Caravan Compass Expedition Archipelago Summit Cartographer Monsoon Rapids Relic Passage",
    "Animation": "Paintbox Kite Teapot Marmalade Firefly Hedgehog Lantern Snowglobe Clockwork Pigeon",
    "Children's": "Treehouse Pony Sandcastle Marbles Attic Puddle Bicycle Summer Biscuit Balloon",
    "Comedy": "Honeymoon Casserole Landlord Understudy Reunion Parrot Wedding Lottery Mix-Up Neighbour",
    "Crime": "Ledger Alibi Locksmith Informant Verdict Getaway Safehouse Counterfeit Heist Precinct",
    "Documentary": "Glacier Orchard Harvest Census Shipyard Migration Archive Coalfield Marathon Estuary",
    "Drama": "Harbour Letter Inheritance Winter Daughter Silence Orchard Confession Threshold Homecoming",
    "Fantasy": "Amulet Sorcerer Kingdom Griffin Thornwood Prophecy Mirror Enchantment Labyrinth Rune",
    "Film-Noir": "Shadow Neon Cigarette Alley Stranger Midnight Raincoat Telegram Saxophone Blackmail",
    "Horror": "Crypt Whisper Cellar Hollow Possession Scarecrow Howl Asylum Haunting Bloodmoon",
    "Musical": "Chorus Overture Serenade Ballroom Footlights Encore Tambourine Cabaret Melody Showboat",
    "Mystery": "Cipher Disappearance Clue Manor Witness Keyhole Riddle Vanishing Lighthouse Manuscript",
    "Romance": "Kiss Postcard Promise Valentine Waltz Rendezvous Balcony Heartache Perfume Moonlight",
    "Sci-Fi": "Orbit Android Colony Starfall Singularity Airlock Satellite Telepath Terraformer Signal",
    "Thriller": "Countdown Hostage Deception Wiretap Vertigo Decoy Double Suspect Panic Switchblade",
    "War": "Trench Battalion Armistice Bunker Paratrooper Regiment Siege Medic Ceasefire Barricade",
    "Western": "Saddle Dust Sheriff Canyon Mustang Stagecoach Outlaw Prairie Homestead Spur",
}
_ADJECTIVES = (
    "Quiet|Crimson|Last|Broken|Golden|Forgotten|Hidden|Burning|Distant|Paper|Silver|Endless|"
    "Hollow|Northern|Secret|Velvet|Stolen|Wild|Bitter|Second|Midnight|Glass|Restless|Borrowed|"
    "Perfect|Empty|Scarlet|Lonely"
)
_PLACES = (
    "Marrakesh|Lisbon|Kestrel Bay|Tbilisi|Cedar Falls|Odessa|Port Lorne|Valparaíso|Elm Street|"
    "Zanzibar|Duluth|the Old Quarter|Saint-Malo|Yonder|Tucson|Reykjavík|Nantucket|the Lower East|"
    "Baku|Winnipeg|Arles|Kyoto"
)
_PEOPLE = (
    "Aurelio|Beatrix|Casimir|Delphine|Esther|Florian|Greta|Hugo|Imogen|Jasper|Katya|Leopold|"
    "Mirabel|Nico|Odile|Percival|Quentin|Rosalind|Silas|Tamsin|Ursula|Viktor|Wilhelmina|"
    "Xavier|Yolanda|Zelda"
)
_PATTERNS = (
    "The {adjective} {noun}",
    "{adjective} {noun}",
    "The {noun}",
    "{person}'s {noun}",
    "The {noun} of {place}",
    "{noun} in {place}",
    "{person} and the {noun}",
    "One {noun} for {person}",
    "Goodbye, {adjective} {noun}",
    "{adjective} {noun}, {adjective2} {noun2}",
)


def invent_titles(first_genres: list[str], years: list[int], rng: np.random.Generator) -> list[str]:
    """One title per film, its year in brackets; a name used before gets a number, as sequels do."""
    part: dict[str, int] = {}
    titles = []
    for genre, year in zip(first_genres, years, strict=True):
        nouns = _NOUNS[genre].split()
        noun, noun2 = rng.choice(nouns, size=2, replace=False)
        adjective, adjective2 = rng.choice(_ADJECTIVES.split("|"), size=2, replace=False)
        name = str(rng.choice(_PATTERNS)).format(
            noun=noun,
            noun2=noun2,
            adjective=adjective,
            adjective2=adjective2,
            person=rng.choice(_PEOPLE.split("|")),
            place=rng.choice(_PLACES.split("|")),
        )
        part[name] = part.get(name, 0) + 1
        titles.append(f"{name}{f' {part[name]}' if part[name] > 1 else ''} ({year})")
    return titles
