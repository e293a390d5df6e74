"""The words and templates that `corpus` draws from; data only.

A word may have fields, `cow|cows|moo`: `{a:animal}` draws one and calls it `a`,
`{a}` is then its first field, `{a.1}` the next.  A template may use any list.
"""

from __future__ import annotations

from typing import Final


def _rows(text: str) -> list[str]:
    return [line.strip() for line in text.strip().splitlines()]


def _words(text: str) -> list[str]:
    return text.split()


def _people(names: str, pronouns: str) -> list[str]:
    return [f"{name}|{pronouns}" for name in _words(names)]


WORDS: Final[dict[str, list[str]]] = {
    # name | he | his | him
    "person": [
        *_people("Anna Clara Emma Rosa Mia Nora Ida Grace Lucy", "she|her|her"),
        *_people("Ella Judith Vera", "she|her|her"),
        *_people("Ben David Felix Oscar Tom Paul Leo Max Henry", "he|his|him"),
        *_people("Jonas Peter Simon", "he|his|him"),
    ],
    # one | many | sound | food | home
    "animal": _rows("""
        cow|cows|moos|grass|the meadow
        dog|dogs|barks|meat|the yard
        cat|cats|purrs|fish|the house
        duck|ducks|quacks|bread|the pond
        owl|owls|hoots|mice|the old tower
        horse|horses|neighs|hay|the stable
        sheep|sheep|bleats|grass|the hill
        frog|frogs|croaks|flies|the pond
        lion|lions|roars|meat|the plain
        mouse|mice|squeaks|cheese|the cellar
        bee|bees|hums|nectar|the garden
        wolf|wolves|howls|meat|the forest
        goose|geese|honks|grass|the river bank
        pig|pigs|grunts|turnips|the farm
    """),
    "place": _rows("""
        the park
        the forest
        the market
        the school
        the library
        the harbour
        the old mill
        the station
        the river
        the castle
        the bakery
        the garden
        the lake
        the village square
    """),
    "thing": _rows("""
        key|made of iron|open the old door
        lamp|made of glass|read at night
        map|drawn on paper|find the way home
        box|made of wood|keep letters in
        ball|made of rubber|play in the yard
        bell|made of brass|call the children
        coat|made of wool|stay warm
        boat|made of wood|cross the lake
        kite|made of paper|fly in the wind
        drum|made of leather|make music
        book|bound in cloth|learn about the stars
        coin|made of silver|buy a loaf of bread
        basket|made of straw|carry apples
        mirror|made of glass|see the road behind
    """),
    "colour": _words("red blue green yellow white black brown grey"),
    "size": _words("small big tiny large long heavy light round"),
    "quality": _words("kind brave clever quiet cheerful patient honest curious"),
    "feeling": _words("happy sad proud tired hungry surprised afraid calm"),
    "weather": _rows("""
        the sun was shining
        it was raining
        snow was falling
        the wind was strong
        the sky was grey
        the night was clear
        a storm was coming
    """),
    "time": _rows("""
        in the morning
        in the evening
        at noon
        after school
        before dinner
        late at night
        early in spring
        on a summer day
        one winter day
    """),
    # past | what for
    "did": _rows("""
        walked to
        ran to
        went to
        drove to
        came back from
        looked for a friend in
        waited in
        got lost in
    """),
    "found": ["found", "saw", "bought", "lost", "made", "hid", "broke", "painted"],
    "food": _words("bread soup cheese rice apples pears honey cake beans fish"),
    "drink": ["milk", "tea", "water", "juice", "coffee"],
    "job": _rows("""
        baker|bakes bread
        farmer|grows wheat
        teacher|helps children learn
        doctor|heals the sick
        sailor|sails the sea
        miller|grinds corn
        painter|paints pictures
        gardener|plants flowers
        smith|makes tools of iron
        writer|writes long books
        fisher|catches fish
        tailor|sews coats
    """),
    # capital | country | river | food
    "land": _rows("""
        Paris|France|the Seine|cheese
        Rome|Italy|the Tiber|pasta
        Vienna|Austria|the Danube|cake
        London|England|the Thames|tea
        Cairo|Egypt|the Nile|beans
        Berlin|Germany|the Spree|bread
        Madrid|Spain|the Manzanares|olives
        Lisbon|Portugal|the Tagus|fish
        Warsaw|Poland|the Vistula|soup
        Dublin|Ireland|the Liffey|potatoes
    """),
    # day | next | before
    "weekday": _rows("""
        Monday|Tuesday|Sunday
        Tuesday|Wednesday|Monday
        Wednesday|Thursday|Tuesday
        Thursday|Friday|Wednesday
        Friday|Saturday|Thursday
        Saturday|Sunday|Friday
        Sunday|Monday|Saturday
    """),
    # month | next | before | season
    "month": _rows("""
        January|February|December|winter
        February|March|January|winter
        March|April|February|spring
        April|May|March|spring
        May|June|April|spring
        June|July|May|summer
        July|August|June|summer
        August|September|July|summer
        September|October|August|autumn
        October|November|September|autumn
        November|December|October|autumn
        December|January|November|winter
    """),
    "opposite": _rows("""
        hot|cold
        big|small
        fast|slow
        old|young
        light|dark
        high|low
        early|late
        full|empty
        hard|soft
        open|closed
    """),
    # --- sentences of stories, about `h`, a friend `f`, a thing `t` ------------------
    "opening": _rows("""
        {h:person} was a {quality} {j:job} who lived near {p:place}.
        once there was a {j:job} called {h:person}. {h.1} was {quality} and {quality}.
        {time} {h:person} {did} {p:place}, and {weather}.
        {h:person} and {h.2} {a:animal} lived in a {colour} house by {p:place}.
        {weather} when {h:person} left home and {did} {p:place}.
        a {quality} child called {h:person} had a {size} {colour} {a:animal}.
    """),
    "event": _rows("""
        there {h.1} {found} a {size} {t:thing}. it was {t.1}.
        {h.1} {found} a {colour} {t:thing} under a tree.
        near {p2:place} {h.1} met {f:person}, who gave {h.3} a {colour} {t:thing}.
        {f:person} came and asked for help with a {size} {t:thing}.
        {h.2} friend {f:person} had lost a {t:thing}, so they looked for it together.
        suddenly a {size} {a:animal} jumped out and {h.1} dropped the {t:thing}.
    """),
    "talk": _rows("""
        "where did you get this {t}?" asked {f:person}. "in {place}," said {h}.
        "the {t} is {opposite}," said {h}. "no," said {f:person}, "it is only {size}."
        "{f:person}, will you come with me to {p3:place}?" asked {h}. "yes, I will."
        {h} said: "we can use the {t} to {t.2}."
        "I am {feeling}," said {h}. "then eat some {food}," said {f:person}.
        "look at that {a:animal}!" cried {f:person}. "it {a.2} like a {animal}!"
    """),
    "middle": _rows("""
        they ate {food} and drank {drink}, and {weather}.
        then {h} took the {t} and {did} {place}.
        but the {t} was too {size}, and {h.1} was {feeling}.
        {h} waited for {small} hours, but nobody came.
        {h.1} counted {small} {a2:animal.1} and {other} {a3:animal.1}: {more} in all.
        {h} cleaned the {t} and put it into a {size} {colour} box.
    """),
    "ending": _rows("""
        in the end {h} was {feeling}, and so was everyone else.
        so {h} gave the {t} back and went home.
        {h.1} kept the {t} for many years.
        that night {h} slept well and dreamed of {place}.
        from that day on {h} always used the {t} to {t.2}.
        and {h} never went to {place} again.
    """),
    # --- facts ----------------------------------------------------------------------
    "fact": _rows("""
        a {x:animal} lives in {x.4}. it eats {x.3}. a {x} {x.2}.
        {x:animal.1} eat {x.3} and live in {x.4}.
        the capital of {l:land.1} is {l}. the river there is {l.2}.
        {l:land} is the capital of {l.1}. people in {l.1} like {l.3}.
        {l:land} lies on {l.2}. it is the capital of {l.1}.
        a {k:job} {k.1}. if you need one, go to {place}.
        the opposite of {o:opposite} is {o.1}.
        a {y:thing} is {y.1}. you can use it to {y.2}.
        after {d:weekday} comes {d.1}. before {d} it was {d.2}.
        {m:month} is in {m.3}. {m.1} comes after {m}, and {m.2} comes before it.
    """),
    "dated": _rows("""
        today is {d:weekday}, {day} {m:month} {year}. tomorrow is {d.1}, {next_day} {m}.
        {h:person} was born on {day} {m:month} {year}, in {m.3}.
        on {day} {m:month} {year}, {w:weekday}, {h:person} opened a shop in {l:land}.
        if today is {d:weekday}, then yesterday was {d.2} and tomorrow is {d.1}.
    """),
    "sum_text": _rows("""
        {a} + {b} = {sum}.
        {sum} - {b} = {a}.
        {small} x {other} = {product}.
        {h:person} has {small} {y:thing}s and gets {other} more. now {h.1} has {more}.
        count: {counting}.
        count in steps of {small}: {stairs}.
    """),
}

PIRATE: Final[dict[str, list[str]]] = {
    "ship": _rows("""
        Black Gull
        Crooked Star
        Salty Maid
        Iron Herring
        Widow's Luck
        Red Cutlass
    """),
    "captain": _rows("""
        Cap'n Bones
        Cap'n Saltbeard
        One-Eyed Meg
        Mad Kate
        Old Barnacle
        Cap'n Flint
    """),
    "loot": _words("doubloons rum pearls rubies gunpowder spices silk"),
    "oath": _rows("""
        arrr
        yo ho ho
        shiver me timbers
        avast
        blow me down
        by Davy Jones
    """),
    "island": _rows("""
        Skull Island
        Tortuga
        the Isle o' Ghosts
        Parrot Cay
        Dead Man's Reef
        Port Royal
    """),
    "foe": _rows("""
        a ship o' the King
        a great kraken
        the crew o' {captain}
        a fog thick as porridge
        a Spanish galleon
    """),
    "log_body": _rows("""
        {oath}! we be sailin' to {i:island} for {loot}.
        the wind blew from the {compass}, an' {foe} gave us chase.
        {c} swore: "{oath}, ye scurvy dogs! hoist the {colour} sail!"
        {small} barrels o' {loot} an' {other} chests o' {loot} be in the hold.
        we buried the {loot} on {i:island}, {small} paces {compass} o' the old palm.
        the parrot cried "{oath}!" an' stole the cook's {food}.
        no rum be left, an' the lads be {feeling} as a drowned rat.
        {foe} hit us at dawn; we lost {small} good hands an' the mainmast.
        me hearties drank {loot} till the lanterns went out at {i:island}.
    """),
    "compass": ["north", "south", "east", "west", "nor'west", "sou'east"],
}

RECIPE: Final[dict[str, list[str]]] = {
    "dish": _words("soup stew pie salad cake pudding bread omelette"),
    "stuff": _words("flour butter milk onions carrots rice beans eggs lentils cream"),
    "unit": ["g of", "spoons of", "cups of", "pinches of"],
    "step": _rows("""
        chop the {stuff} and fry it in {stuff} for {small} minutes.
        mix {small} {unit} {stuff} with {other} {unit} {stuff}.
        bake at {heat} degrees for {day} minutes.
        stir in the {stuff}, cover, and wait.
        season with salt, pepper and a little {stuff}.
        boil the {stuff} until soft, then drain.
    """),
    "heat": ["160", "180", "200", "220"],
}

WORDS.update(PIRATE)
WORDS.update(RECIPE)

STYLES: Final[dict[str, list[str]]] = {
    "plain": [
        "{opening} {event} {talk} {middle} {ending}",
        "{opening} {event} {middle} {talk} {middle} {ending}",
        "{opening} {event} {talk} {ending}",
        "{opening} {event} {ending}",
        "{fact} {fact}",
        "{fact} {fact} {fact}",
        "{dated}",
        "{dated} {fact}",
        "{sum_text}",
        "{sum_text} {dated}",
    ],
    "pirate": [
        "log o' the {ship}, {c:captain} commandin'. {log_body} {log_body}",
        "log o' the {ship}, {c:captain} commandin'. {log_body} {log_body} {log_body}",
        "{oath}! {c:captain} o' the {ship} here. {log_body} {log_body}",
    ],
    "recipe": [
        "{stuff} {dish}\nServes {small}.\n{step}\n{step}\n{step}",
        "{stuff} and {stuff} {dish}\nServes {small}.\n{step}\n{step}\n{step}\n{step}",
    ],
}
