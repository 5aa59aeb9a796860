"""Common English words of four to eight letters, written for the spelling skill.

Data, nothing else.
"""

TEXT = """
able about above acid acorn actor admit adult after again agree ahead alarm album alive allow alone along alter amber
amount anchor angle ankle answer apart apple april apron arch area argue arm army arrow artist asleep atlas attic august
aunt autumn avoid awake award baby back badge baker ball band bank barn basket beach beard beast became before begin
behind being belief bell belong bench berry beside better beyond bicycle bird birth bitter black blade blank blanket blind
block blood blossom board boat body bold bone border bottle bottom bowl branch brave bread break breath breeze brick bridge
bright bring brother brown brush bubble bucket build bundle burn butter button cabin cable cactus cage cake calm camera
camp canal candle canoe captain carbon card care carpet carrot carry castle catch cattle cause cave ceiling cellar center
cereal chain chair chalk chance change chapter charm chase cheap check cheese cherry chest chicken child chimney circle
city claim class clay clean clear clerk clever cliff climb clock close cloth cloud clover coal coast coat coffee coin cold
collar color comet common compass copper coral corn corner cotton couch cough count country couple course cousin cover
crab cradle crane cream create creek crew crisp crop cross crowd crown cruel crust curtain curve custom daily dairy daisy
damp dance danger dark daughter dawn deal dear debt decide deep deer delay desert desk detail diamond diet dinner dirt dish
distant dive doctor dollar dolphin donkey door double doubt down dragon drama draw dream dress drift drink drive drum dusk
dust duty eagle early earth east easy echo edge effort eight elbow empty engine enjoy enough enter equal error escape even
evening every evil exact exit extra fabric face fact fade fair faith family famous farm fast father fault feast feather
fence fever field fierce fifty fight figure film final finger finish fire firm fish flag flame flat flavor flight float
flock floor flour flower flute foam focus foggy fold follow food forest forget fork form fossil found fountain frame free
fresh friend frog front frost frozen fruit funny future gain gallon game garage garden garlic gate gather gentle ghost
giant ginger glad glass glove goat gold goose grain grand grape grass gravel great green grip group grow guard guess guest
guide guitar habit hair half hammer hand handle happy harbor hard harvest hasty hawk hazel heal heart heat heavy helmet
help herb hero hidden high hill hint hobby hold hollow home honest honey hope horn horse hotel hour house human humble
hundred hungry hunt husband idea image inch insect inside iron island ivory jacket jail jar jelly jewel join joke journey
judge juice jump jungle keep kettle kind king kitchen kite kitten knee knife knock ladder lake lamb lamp land large laugh
lawn lazy leader leaf learn leather legend lemon lesson letter level library life lift light limb linen lion liquid list
little lively lizard local lock lonely long lovely loyal lucky lumber lunch machine magic magnet main maple marble march
margin market mask master match meadow meal measure meat medal melon member memory metal meter middle might milk mind
minor mint minute mirror mist mobile model modern moment money monkey month moral morning mother motion motor mountain
mouse mouth move movie muscle museum music narrow nation nature near neck needle nephew nerve nest never night noble noise
north nose notebook novel number nurse oak object ocean offer office often olive onion open orange orbit order organ other
owner oyster pack page pain paint palace pale palm panel paper parade parent park parrot party past paste patch path
patient pattern peace peach peanut pearl pencil penny people pepper perfect phone photo piano picnic picture piece pillow
pilot pine pink pirate pitch place plain planet plant plastic plate play please plenty plow plum pocket poem point polar
police polite pond pony pool porch port potato pound powder power prairie praise prefer pretty price pride prince print
prison prize proud public pull pump puppet pure purple purse push puzzle quart queen quick quiet quilt quite rabbit race
radio rail rain raise ranch range rapid rare raven reach read real reason record reply rescue rest return ribbon rich ride
right ring ripe river road roast robin rock rocket roof room root rope rose rough round royal rubber rule runner rush
saddle safe sail salad salmon salt same sample sand saucer scale scarf school science scout screen seal search season seat
second secret seed sentence seven shadow shake shallow shape share sharp shed sheep shelf shell shelter shield shine ship
shirt shoe shop shore short shoulder shovel show shower sick side sign silent silk silver simple since sing sister size
skate skill skin sky sleep slice slide slope slow small smart smile smoke smooth snail snake snow soap soccer sock soft
soil soldier solid some song soon sorry soup south space spark speak special speed spell spice spider spirit split spoon
sport spot spread spring square squirrel stable staff stage stairs stamp stand star start state station steam steel stem
step stick still stitch stone stool store storm story stove strange straw stream street strong student study sudden sugar
suit summer sun sunny supper sure surface sweet swim swing sword symbol table tail take talent tale tall tank target taste
teach team tear temple tent thank theater thick thin thing think third thirsty thorn thread three throat throw thumb
thunder ticket tide tiger timber time tiny tire tired title toast tobacco today together tomato tongue tool tooth topic
torch total touch tower town trade traffic trail train travel treasure treat tree trial triangle tribe trick truck true
trumpet trunk trust truth tulip tunnel turkey turtle twelve twenty twice twin type ugly uncle under unit until upper urban
useful usual valley value vapor velvet very vessel village violin visit voice volcano voyage wagon waist wait wake walk wall
walnut warm wash watch water wave weak wealth weapon weather weed week weight west whale wheat wheel whisper whistle white
whole wide wild willow wind window wing winter wire wisdom wise wish wolf woman wonder wood wool word work world worm worry
wrap wrist write wrong yard year yellow young zebra
"""

WORDS: tuple[str, ...] = tuple(TEXT.split())
