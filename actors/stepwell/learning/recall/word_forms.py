"""Irregular forms of English words. A stemmer takes off endings; that `bought` is `buy` it cannot know."""

from __future__ import annotations

_FORMS = """
arise arose arisen; awake awoke awoken; bear bore borne; beat beaten; become became; begin began begun; bend bent
bet; bind bound; bite bit bitten; bleed bled; blow blew blown; break broke broken; breed bred; bring brought
build built; burn burnt; buy bought; catch caught; choose chose chosen; cling clung; come came; creep crept; deal dealt
dig dug; do did done; draw drew drawn; dream dreamt; drink drank drunk; drive drove driven; eat ate eaten
fall fell fallen; feed fed; feel felt; fight fought; find found; flee fled; fly flew flown; forbid forbade forbidden
forget forgot forgotten; forgive forgave forgiven; freeze froze frozen; get got gotten; give gave given; go went gone
grow grew grown; hang hung; hear heard; hide hid hidden; hold held; keep kept; kneel knelt; know knew known; lay laid
lead led; lean leant; leap leapt; learn learnt; leave left; lend lent; lie lain; light lit; lose lost; make made
mean meant; meet met; mistake mistook mistaken; overcome overcame; pay paid; prove proven; ride rode ridden
ring rang rung; rise rose risen; run ran; say said; see saw seen; seek sought; sell sold; send sent; sew sewn
shake shook shaken; shine shone; shoot shot; show shown; shrink shrank shrunk; sing sang sung; sink sank sunk; sit sat
sleep slept; slide slid; speak spoke spoken; speed sped; spell spelt; spend spent; spill spilt; spin spun
spring sprang sprung; stand stood; steal stole stolen; stick stuck; sting stung; strike struck stricken; string strung
strive strove striven; swear swore sworn; sweep swept; swell swollen; swim swam swum; swing swung; take took taken
teach taught; tear tore torn; tell told; think thought; throw threw thrown; understand understood; undo undid undone
wake woke woken; wear wore worn; weave wove woven; weep wept; win won; withdraw withdrew withdrawn; write wrote written
child children; man men; woman women; person people; foot feet; tooth teeth; goose geese; mouse mice; wife wives
life lives; knife knives; half halves; shelf shelves; leaf leaves; self selves; thief thieves; wolf wolves
"""

FORMS = {
    form: words[0]
    for words in (group.split() for line in _FORMS.splitlines() for group in line.split(";"))
    for form in words[1:]
}
"""From an irregular form to the one that is compared."""
